# SPDX-License-Identifier: Apache-2.0
"""Signed statements about a bundle: in-toto Statements v1 in DSSE envelopes, signed with Ed25519."""
