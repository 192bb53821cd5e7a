# SPDX-License-Identifier: Apache-2.0
"""Everything that is written from the files of a bundle; the same files give the same bytes."""

from __future__ import annotations

from pipeline.card.annex_iv import annex_iv
from pipeline.card.bom import bill_of_materials
from pipeline.card.compliance import crosswalk, crosswalk_value
from pipeline.card.contents import ANNEX_IV, BOM, CARD, CROSSWALK, CROSSWALK_JSON, PAGE, Contents
from pipeline.card.figures import title_of
from pipeline.card.model_card import model_card
from pipeline.card.page import render_page
from pipeline.fields import Fields

__all__ = ["documents"]


def documents(contents: Contents, environment: Fields) -> dict[str, str]:
    """Return path below the bundle to text, of every document.

    Args:
        contents: Of the bundle, checked.
        environment: Versions of what made it, as `bundle.json` has them.

    Raises:
        EvidenceError: if a figure that one of them needs is malformed.
    """
    card = model_card(contents)
    return {
        CARD: card,
        PAGE: render_page(card, title_of(contents)),
        ANNEX_IV: annex_iv(contents),
        CROSSWALK: crosswalk(contents),
        CROSSWALK_JSON: crosswalk_value(contents),
        BOM: bill_of_materials(contents, environment),
    }
