# SPDX-License-Identifier: Apache-2.0
"""The ledger: what was done to the registry, in order, so that nothing can be taken out unseen."""
