# SPDX-License-Identifier: Apache-2.0
"""Attempts to get an unproven model into production, past a gated registry."""
