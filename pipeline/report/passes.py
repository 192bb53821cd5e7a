# SPDX-License-Identifier: Apache-2.0
"""How a model was made, in words: of every pass what was asked, what it changed, and what it left."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from checks.errors import EvidenceError
from pipeline.fields import Fields
from pipeline.plain import shorten
from pipeline.report.figures import PassDone
from pipeline.report.pass_options import describe_options, describe_plain
from pipeline.report.wording import (
    NO_FIGURE,
    count_of,
    describe_bytes,
    describe_macs,
    describe_value,
)

__all__ = ["NUMBERS", "PASSES", "pass_columns", "pass_rows", "passes_in"]

_FEW = 4
_LONGEST = 120
_WIDEST = 500
_SPARSE = 0.05
"""Rounding to int8 makes some zeros of any network; so few are not what a pass was for."""

_ARROW = "\u2192"

NUMBERS = ("#", "MACs", "Parameters", "Zeros", "Size", "Validation accuracy")
"""Columns that hold numbers."""

PASSES = (
    "Options are those that differ from the method's defaults. What stands right of what changed is measured "
    "on the ONNX file after the pass; sizes after gzip are in brackets. compression.json holds every option, "
    "seed and figure."
)
"""What a reader must know to read the table."""

_COLUMNS = ("#", "Pass", "Options", "What changed", *NUMBERS[1:])


def _named(entries: Iterable[str]) -> str:
    """Join a few entries, and count the rest."""
    told = list(entries)
    more = f" and {len(told) - _FEW:,} more" if len(told) > _FEW else ""
    return "; ".join(told[:_FEW]) + more


def _natural(name: str) -> list[tuple[int, str]]:
    """Sort `layer2` before `layer10`, as networks do and canonical JSON does not."""
    parts = re.split(r"([0-9]+)", name)
    return [(len(part) if index % 2 else 0, part) for index, part in enumerate(parts)]


def _counts(value: object) -> dict[str, tuple[int, int]] | None:
    """Return what names two counts each, or None for anything else."""
    if not isinstance(value, dict):
        return None
    pairs = {}
    for name in sorted(value, key=_natural):
        pair = value[name]
        if not isinstance(pair, list) or len(pair) != 2 or not all(type(count) is int for count in pair):
            return None
        pairs[shorten(name, _LONGEST)] = (pair[0], pair[1])
    return pairs


def _changes(noun: str) -> Callable[[object], str | None]:
    def describe(value: object) -> str | None:
        pairs = _counts(value)
        if pairs is None:
            return None
        told = [
            f"{name} {before} {_ARROW} {after}" for name, (before, after) in pairs.items() if before != after
        ]
        return f"{noun}: {_named(told)}" if told else f"{noun}: none changed"

    return describe


def _zeros(value: object) -> str | None:
    pairs = _counts(value)
    if pairs is None or any(size < 1 for size, _ in pairs.values()):
        return None
    told = [
        f"{name} {describe_value(zeros / size, 'share', 'proportion', 0)}"
        for name, (size, zeros) in pairs.items()
    ]
    return f"zeros: {_named(told)}"


def _kept(value: object) -> str | None:
    if isinstance(value, dict):
        told = [f"{shorten(name, _LONGEST)} ({describe_plain(reason)})" for name, reason in value.items()]
    elif isinstance(value, list):
        told = [describe_plain(name) for name in value]
    else:
        return None
    return f"kept whole: {_named(told)}" if told else ""


def _names(noun: str) -> Callable[[object], str | None]:
    def describe(value: object) -> str | None:
        if not isinstance(value, list):
            return None
        return f"{noun}: {_named(describe_plain(name) for name in value)}" if value else ""

    return describe


def _count(noun: str, plural: str, what: str) -> Callable[[object], str | None]:
    def describe(value: object) -> str | None:
        return f"{count_of(value, noun, plural)} {what}" if type(value) is int else None

    return describe


def _share(words: str) -> Callable[[object], str | None]:
    def describe(value: object) -> str | None:
        is_share = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
        return f"{words} {describe_value(value, 'share', 'proportion', 1)}" if is_share else None  # type: ignore[arg-type]

    return describe


def _untrained(value: object) -> str | None:
    accuracy = value.get("validation_accuracy") if isinstance(value, dict) else None
    return _share("before training right on")(accuracy)


def _matched(value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    told = [f"{shorten(name, _LONGEST)} ({describe_plain(how)})" for name, how in value.items()]
    return f"matched the teacher's {_named(told)}"


_WORDS: Mapping[str, Callable[[object], str | None]] = {
    "channels": _changes("channels"),
    "ranks": _changes("ranks"),
    "energy": _share("energy kept"),
    "zeros": _zeros,
    "removed": _names("blocks removed"),
    "kept": _kept,
    "training_macs_share": _share("cost of training, share of one without removals:"),
    "matched": _matched,
    "layers": _count("layer", "layers", "stored as int8"),
    "weights_only": _count("further layer", "further layers", "stored as int8, computed in floats"),
    "folded_norms": _count("norm", "norms", "folded"),
    "equalized_pairs": _count("pair of layers", "pairs of layers", "equalized"),
    "rescaled_channels": _count("channel", "channels", "rescaled to be portable"),
    "corrected_layers": _count("bias", "biases", "corrected"),
    "kept_float": _names("left in floats"),
    "rung": lambda value: f"rung {describe_plain(value)}",
    "untrained": _untrained,
    "agreement": _share("the file decides as what was trained on"),
}
"""Figures that passes of this project record, in the order in which they are told."""

_SILENT = {"sensitivity"}
"""Rankings that other figures tell the end of."""

_INTEGERS = (
    ("convolutions", "integer_convolutions", "convolutions"),
    ("products", "integer_products", "matrix products"),
)


def _integers(figures: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    for total, integer, noun in _INTEGERS:
        whole, part = figures.get(total), figures.get(integer)
        if type(whole) is int and type(part) is int:
            yield (total, integer), f"{part:,} of {whole:,} {noun} in integers" if whole else ""


def _whole(steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum up the steps of a schedule: of pairs the first before and the last after, of the rest the last."""
    figures = dict(steps[-1])
    for key in ("channels", "ranks"):
        first, last = _counts(steps[0].get(key)), _counts(figures.get(key))
        if first and last:
            figures[key] = {name: [first.get(name, pair)[0], pair[1]] for name, pair in last.items()}
    return figures


def _scheduled(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("steps", "events"):
        steps = figures.get(key)
        if isinstance(steps, list) and steps and all(isinstance(step, dict) for step in steps):
            inner = {
                name: value
                for name, value in _whole(steps).items()
                if name not in ("step", "steps", "events")
            }
            yield key, count_of(len(steps), "step")
            for words in _changed(inner):
                yield key, words


def _changed(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield what changed: what is known in words, what is not as it stands."""
    rest = dict(figures)
    for key, words in _scheduled(figures):
        rest.pop(key, None)
        yield words
    for keys, words in _integers(figures):
        rest = {key: value for key, value in rest.items() if key not in keys}
        yield words
    rungs = rest.get("rungs")
    if isinstance(rungs, list):
        del rest["rungs"]
        yield f"{count_of(len(rungs), 'rung')} climbed"
    unknown = sorted(rest.keys() - _WORDS.keys() - _SILENT)
    for key in [*(key for key in _WORDS if key in rest), *unknown]:
        told = _WORDS[key](rest[key]) if key in _WORDS else None
        yield f"{shorten(key, _LONGEST)} {describe_plain(rest[key])}" if told is None else told


def passes_in(fields: Fields) -> tuple[PassDone, ...]:
    """Return the passes of a `compression.json`.

    Args:
        fields: Its content.

    Raises:
        EvidenceError: if there is no pass, or one does not say what it left.
    """
    passes = []
    for entry in fields.entries("passes"):
        name, options, left = entry.text("pass"), entry.maybe_inner("options"), entry.inner("left")
        figures = {key: value for key, value in entry.value.items() if key not in ("pass", "options", "left")}
        done = PassDone(
            name=shorten(name, _LONGEST),
            options=describe_options(name, options.value if options else {}),
            changed=tuple(shorten(words, _WIDEST) for words in _changed(figures) if words),
            macs=left.count("macs"),
            parameters=left.count("parameters"),
            sparsity=left.number("sparsity"),
            bytes=left.count("bytes"),
            gzip_bytes=left.count("gzip_bytes"),
            validation_accuracy=left.number("validation_accuracy"),
        )
        passes.append(done)
    if not passes:
        raise EvidenceError("expected at least one pass, got none", where=f"{fields.where} passes")
    return tuple(passes)


def _shown(passes: Sequence[PassDone]) -> list[int]:
    sparse = any(done.sparsity >= _SPARSE for done in passes)
    return [index for index, column in enumerate(_COLUMNS) if sparse or column != "Zeros"]


def pass_columns(passes: Sequence[PassDone]) -> tuple[str, ...]:
    """Return the titles of the table; zeros only where a pass left many."""
    return tuple(_COLUMNS[index] for index in _shown(passes))


def pass_rows(passes: Sequence[PassDone]) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Yield a row a pass, one cell a column; a cell is lines of plain words."""
    for place, done in enumerate(passes, start=1):
        cells = (
            (str(place),),
            (done.name,),
            (done.options or NO_FIGURE,),
            done.changed or (NO_FIGURE,),
            (describe_macs(done.macs),),
            (describe_macs(done.parameters),),
            (describe_value(done.sparsity, "sparsity", "proportion", 1),),
            (describe_bytes(done.bytes), f"({describe_bytes(done.gzip_bytes)})"),
            (describe_value(done.validation_accuracy, "accuracy", "proportion", 1),),
        )
        yield tuple(cells[index] for index in _shown(passes))
