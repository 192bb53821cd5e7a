# SPDX-License-Identifier: Apache-2.0
"""Whether the three files of the prepared data speak of the same examples.

Plain numpy and pandas: these compare files with each other, while Great Expectations judges one table.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.data.contents import DESCRIPTION, EXAMPLES, HINT, MANIFEST, Contents, Description
from pipeline.data.findings import DataFinding, count_of, first_rows, name_some
from pipeline.data.splits import SPLITS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["judge_agreement"]


def _judge_digest(contents: Contents, name: str, key: str, check: str) -> DataFinding:
    expected = f"the SHA-256 that {DESCRIPTION} names in {key}"
    came = contents.sha256.get(name)
    if contents.description is None or came is None:
        missing = name if came is None else DESCRIPTION
        return DataFinding.not_judged(check, name, expected, f"{missing} cannot be read")
    return DataFinding(check, came == contents.description.facts.get(key), name, expected, came, hint=HINT)


def _judge_ids(contents: Contents) -> DataFinding:
    check, expected = "examples-ids", f"the ids of {MANIFEST}, in its order"
    if contents.ids is None:
        return DataFinding.not_judged(check, EXAMPLES, expected, f"{EXAMPLES} cannot be read", column="ids")
    if contents.manifest is None or contents.missing("id"):
        return DataFinding.not_judged(
            check, EXAMPLES, expected, f"{MANIFEST} has no readable ids", column="ids"
        )
    named = [None if value is None else str(value) for value in contents.manifest["id"]]
    came = list(contents.ids)
    if came == named:
        return DataFinding(
            check, bool(came), EXAMPLES, expected, count_of(len(came), "id"), column="ids", hint=HINT
        )
    known, there = set(named), set(came)
    extra = [value for value in dict.fromkeys(came) if value not in known]
    absent = [value for value in dict.fromkeys(named) if value is not None and value not in there]
    parts = [f"{len(came)} ids for {count_of(len(named), 'row')}"] if len(came) != len(named) else []
    parts += [f"ids that the manifest lacks: {name_some(extra)}"] if extra else []
    parts += [f"no images of {name_some(absent)}"] if absent else []
    text = "; ".join(parts) or "the same ids in another order"
    differing = [a or b for a, b in zip(named, came, strict=False) if a != b]
    rows = [*extra, *absent] or [value for value in differing if value is not None]
    return DataFinding(
        check,
        False,
        EXAMPLES,
        expected,
        text,
        column="ids",
        hint=HINT,
        rows=first_rows(rows),
        row_count=len(rows),
    )


def _judge_pixels(contents: Contents) -> DataFinding:
    check, description, pixels = "examples-pixels", contents.description, contents.pixels
    expected = "uint8 pixels of the shape and range that data.json names"
    if pixels is None or description is None:
        missing = EXAMPLES if pixels is None else DESCRIPTION
        return DataFinding.not_judged(check, EXAMPLES, expected, f"{missing} cannot be read", column="pixels")
    shape = (description.rows, *description.shape)
    expected = f"uint8 pixels of shape {shape} within [0, {description.pixel_max}]"
    came, rows = f"{pixels.dtype} {pixels.shape}", np.zeros(0, dtype=np.int64)
    fits = pixels.dtype == np.uint8 and pixels.shape == shape
    if fits:
        largest = pixels.reshape(len(pixels), -1).max(axis=1)
        rows = np.flatnonzero(largest > description.pixel_max)
        came += f" within [{int(pixels.min())}, {int(largest.max())}]"
    ids = contents.ids if contents.ids is not None and len(contents.ids) == len(pixels) else ()
    return DataFinding(
        check,
        bool(fits and not len(rows)),
        EXAMPLES,
        expected,
        came,
        column="pixels",
        hint="check prepare.source in params.yaml; the model scales pixels by pixel_max",
        rows=first_rows([ids[row] for row in rows if row < len(ids)]),
        row_count=len(rows),
    )


def _value(value: Any) -> str | None:
    """A blank value says as little as a null, here as in the manifest."""
    return value if isinstance(value, str) and value.strip() else None


def _said_sources(description: Description) -> Counter[tuple[Any, Any, Any]] | None:
    sources = description.facts.get("sources")
    if not isinstance(sources, list) or not all(isinstance(entry, dict) for entry in sources):
        return None
    said: Counter[tuple[Any, Any, Any]] = Counter()
    for entry in sources:
        if type(entry.get("rows")) is not int:
            return None
        said[_value(entry.get("source")), _value(entry.get("license")), _value(entry.get("consent"))] += (
            entry["rows"]
        )
    return said


def _judge_description(description: Description, manifest: pd.DataFrame) -> tuple[str, str]:
    """Where `data.json` and the manifest differ, and what was compared."""
    differing: list[str] = []
    counts = Counter(manifest["split"])
    said, there = description.facts.get("splits"), {name: counts[name] for name in SPLITS}
    if said != there:
        differing.append(f"splits {said!r:.200} where the manifest has {there}")
    came = Counter(zip(manifest["source"], manifest["license"], manifest["consent"], strict=True))
    if _said_sources(description) != came:
        differing.append(f"other sources, licenses, consents or numbers of rows than {MANIFEST}")
    return "; ".join(differing), f"{count_of(len(came), 'source')}, {count_of(len(manifest), 'row')}"


def judge_agreement(contents: Contents) -> list[DataFinding]:
    """Compare the files of the prepared data with each other.

    Args:
        contents: The files, as far as they could be read.

    Returns:
        One finding a comparison; a comparison that lacks a side is a FAIL.
    """
    check, expected = (
        "description-agrees",
        f"the splits and sources of {MANIFEST}, with their numbers of rows",
    )
    lacking = contents.missing("split", "source", "license", "consent")
    if contents.description is None:
        agrees = DataFinding.not_judged(check, DESCRIPTION, expected, f"{DESCRIPTION} cannot be read")
    elif contents.manifest is None or lacking:
        reason = f"{MANIFEST} has no readable {name_some(lacking)}"
        agrees = DataFinding.not_judged(check, DESCRIPTION, expected, reason)
    else:
        wrong, compared = _judge_description(contents.description, contents.manifest)
        agrees = DataFinding(check, not wrong, DESCRIPTION, expected, wrong or compared, hint=HINT)
    return [
        _judge_digest(contents, MANIFEST, "manifest_sha256", "manifest-unchanged"),
        _judge_digest(contents, EXAMPLES, "examples_sha256", "examples-unchanged"),
        agrees,
        _judge_ids(contents),
        _judge_pixels(contents),
    ]
