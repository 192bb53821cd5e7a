# SPDX-License-Identifier: Apache-2.0
"""What MLflow loads in every client by its entry points; few of them are servers, so nothing is imported."""

from __future__ import annotations

from typing import Any

__all__ = ["gated_store"]


def gated_store(store_uri: str | None = None, tracking_uri: str | None = None) -> Any:
    """Return the gated registry store behind a URI that begins with `gated+`."""
    from leangate.plugins.gated_store import GatedStore

    return GatedStore(store_uri, tracking_uri)
