# SPDX-License-Identifier: Apache-2.0
"""Everything that executes a model for measurement."""
