# SPDX-License-Identifier: Apache-2.0
"""The offline verifier of LeanGate alone: the command `leangate-verify`."""
