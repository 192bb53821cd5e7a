# SPDX-License-Identifier: Apache-2.0
"""Plugins that an MLflow server loads: the gated registry store, and the write-once artifact store."""
