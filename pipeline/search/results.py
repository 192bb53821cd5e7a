# SPDX-License-Identifier: Apache-2.0
"""What came of a search: every trial, the front, and the winners."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.layout import Layout
from pipeline.models.record import read_record
from pipeline.params import Params
from pipeline.search.bench import epochs_inside
from pipeline.search.halving import front_of, spread
from pipeline.search.run import identity_of
from pipeline.search.space import same_passes
from pipeline.search.study import MAXIMIZED, Entry, Study, losses_of

__all__ = ["SCHEMA", "describe_passes", "is_ours", "results_of"]

SCHEMA = "leangate/search/1"

_PREFIX = "search_"


def is_ours(name: str) -> bool:
    """Whether a recipe has a name that the search gives: what has one is replaced by the next search."""
    return name.startswith(_PREFIX) and name.removeprefix(_PREFIX).isdigit()


def _row(entry: Entry, params: Params) -> dict[str, Any]:
    """Describe a trial; one that was dropped at a rung is a recipe, too: the one that ends there."""
    ended = entry.state in ("finished", "dropped") and len(entry.rungs) > 0
    recipe = dict(entry.recipe)
    if entry.state == "dropped" and ended:
        inside = epochs_inside(params.quantize.recipes[recipe["precision"]])
        ended = inside == 0  # else its precision was not trained as its recipe says
        if ended and len(entry.rungs) < len(entry.lengths):
            recipe["passes"] = recipe["passes"][: entry.lengths[len(entry.rungs) - 1]]
    return {
        "trial": entry.slot,
        "bracket": entry.bracket,
        "state": entry.state,
        "reason": entry.reason,
        "recipe": recipe,
        "objectives": dict(entry.rungs[-1]) if ended else None,
        "rungs": [dict(values) for values in entry.rungs],
        "epochs": entry.epochs,
        "sha256": entry.sha256 if ended else None,
        "on_front": False,
        "winner": None,
    }


def results_of(study: Study, layout: Layout, params: Params) -> dict[str, Any]:
    """Return the content of `trials.json`.

    Winners are those of the front that are new, lose at most `shortlist.max_accuracy_drop` on the validation
    split, and together dominate most.
    """
    objectives = params.search.objectives
    baseline = read_record(layout.baseline)
    rows = [_row(entry, params) for entry in study.entries()]
    ended = [row for row in rows if row["objectives"] is not None]
    for place in front_of(_losses(objectives, ended)):
        ended[place]["on_front"] = True
    least = baseline["validation_accuracy"] - params.shortlist.max_accuracy_drop
    able = [
        row
        for row in ended
        if row["on_front"]
        and row["sha256"] != baseline["sha256"]
        and row["objectives"]["accuracy"] >= least
        and not _stands_already(row["recipe"], params)
    ]
    for number, place in enumerate(spread(_losses(objectives, able), params.search.winners), start=1):
        able[place]["winner"] = f"{_PREFIX}{number}"
    return {
        "schema": SCHEMA,
        "identity": identity_of(layout, params),
        "objectives": [
            {"name": name, "direction": "max" if name in MAXIMIZED else "min"} for name in objectives
        ],
        "baseline": {
            "accuracy": baseline["validation_accuracy"],
            "loss": baseline["validation_loss"],
            "bytes": baseline["bytes"],
            "macs": baseline["macs"],
            "sha256": baseline["sha256"],
        },
        "least_accuracy": least,
        "states": dict(Counter(row["state"] for row in rows)),
        "epochs": sum(row["epochs"] for row in rows),
        "trials": rows,
    }


def _losses(objectives: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Any:
    values = [losses_of(objectives, row["objectives"]) for row in rows]
    return np.array(values).reshape(len(rows), len(objectives))


def _stands_already(recipe: Mapping[str, Any], params: Params) -> bool:
    """Whether `params.yaml` has this candidate by another name than the search's own."""
    if recipe["precision"] not in params.quantize.precisions:
        return False
    for name in params.prune.variants:
        if not is_ours(name) and same_passes(recipe["passes"], params.prune.recipes[name]):
            return True
    return False


_SHOWN = {
    "channels": lambda options: (
        f"channels 1/{options['macs_reduction']:g}"
        f" by {options['criterion']}"
        + (f", multiples of {options['round_to']}" if options["round_to"] > 1 else "")
    ),
    "blocks": lambda options: f"{options['remove']} blocks less",
    "low_rank": lambda options: f"low rank 1/{options['macs_reduction']:g}",
}


def describe_passes(recipe: Mapping[str, Any]) -> str:
    """Return a recipe in a few words."""
    if not recipe:
        return "not drawn"
    words, epochs, rate, soft = [], 0, 0.0, 0.0
    for entry in recipe["passes"]:
        ((kind, options),) = entry.items()
        if kind == "recover":
            epochs += options["epochs"]
            rate = options["learning_rate"]
            soft = options.get("distill", {}).get("soft", 0.0)
        else:
            words.append(_SHOWN[kind](options))
    if epochs:
        words.append(f"{epochs} epochs at {rate:g}" + (f", distilled {soft:g}" if soft else ""))
    return "; ".join(words) or "the baseline as it is"
