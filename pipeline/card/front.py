# SPDX-License-Identifier: Apache-2.0
"""The YAML block at the head of a card, which model hubs read (Hugging Face model card metadata)."""

from __future__ import annotations

import re
import unicodedata
from io import StringIO
from typing import Any

from pipeline.card.contents import Contents
from pipeline.card.figures import Judged, title_of

__all__ = ["front_matter"]

_HUB_LICENSES = frozenset(
    {
        *(
            "apache-2.0",
            "mit",
            "bsd-2-clause",
            "bsd-3-clause",
            "isc",
            "zlib",
            "unlicense",
            "mpl-2.0",
            "epl-2.0",
        ),
        *("lgpl-2.1", "lgpl-3.0", "gpl-2.0", "gpl-3.0", "agpl-3.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"),
        *("cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0"),
    }
)
"""Licences that the hubs know by name; they write SPDX ids in lower case."""


def _one_line(value: str) -> str:
    """A hub's parser must see one plain line: no line ends, no characters that hide or turn text."""
    return " ".join("".join(c if unicodedata.category(c)[0] not in "CZ" else " " for c in value).split())


def _slug(value: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", value.lower()).strip("-.")[:90].strip("-.") or "unnamed"


def _license(name: str) -> dict[str, str]:
    if not name.strip():
        return {"license": "unknown"}
    known = name.strip().lower()
    if known in _HUB_LICENSES:
        return {"license": known}
    return {"license": "other", "license_name": f"{_slug(name)}"}


def _metrics(judged: Judged) -> list[dict[str, Any]]:
    named = {
        "candidate_accuracy": "Accuracy",
        "candidate_robust_accuracy": "Accuracy under this card's attacks",
    }
    metrics: list[dict[str, Any]] = []
    for metric, words in named.items():
        reading = judged.decision.reading(metric)
        if reading is not None:
            metrics.append({"type": "accuracy", "name": words, "value": round(reading.value, 4)})
    for size, reading in judged.decision.by_batch("latency_ratio"):
        name = f"Time of a batch of {size}, share of the baseline's"
        metrics.append({"type": "latency_ratio", "name": name, "value": round(reading.value, 4)})
    return metrics


def front_matter(contents: Contents, judged: Judged) -> str:
    """Return the YAML block with its fences.

    Args:
        contents: Of the bundle.
        judged: Its decision's numbers.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Quoted

    sources = sorted({_one_line(entry.text("source")) for entry in contents.data.entries("sources")})
    name = "; ".join(sources)
    # Quoted, because YAML 1.1 and 1.2 disagree on what a bare `no`, `1:30` or `010` is.
    dataset = {"type": Quoted(_slug(name)), "name": Quoted(name), "split": "test"}
    task = {"type": "image-classification", "name": "Image Classification"}
    result = {"task": task, "dataset": dataset, "metrics": _metrics(judged)}
    value = {
        **_license(contents.governance.license),
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "leangate", "model-compression", "onnx"],
        "metrics": ["accuracy"],
        "model-index": [{"name": Quoted(_one_line(title_of(contents))), "results": [result]}],
    }
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 100_000
    stream = StringIO()
    yaml.dump(value, stream)
    return f"---\n{stream.getvalue()}---"
