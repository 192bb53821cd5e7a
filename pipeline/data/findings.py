# SPDX-License-Identifier: Apache-2.0
"""What the validation of data finds, and how values from data are shown in messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "MAX_ROWS_NAMED",
    "DataFinding",
    "count_of",
    "escape_unprintable",
    "first_rows",
    "name_some",
    "quote",
]

MAX_ROWS_NAMED = 20
"""A finding names at most so many rows; `row_count` tells how many there are."""

MAX_VALUE_LENGTH = 80

NOT_JUDGED = "not judged: "


@dataclass(frozen=True)
class DataFinding:
    """One check on the prepared data, with its verdict.

    Attributes:
        check: Name of the check, unique within one validation.
        passed: Whether the data satisfy it.
        file: The file it looked at, relative to the folder of the data.
        column: The column or key of that file, or empty.
        expected: What the data must satisfy, as in "expected ...".
        came: What was observed, as in "got ...".
        hint: What to do if it fails.
        expectation: Type of the Great Expectations expectation that judged, or empty.
        rows: Ids of offending rows, at most `MAX_ROWS_NAMED`.
        row_count: Number of offending rows.
    """

    check: str
    passed: bool
    file: str
    expected: str
    came: str
    column: str = ""
    hint: str = ""
    expectation: str = ""
    rows: tuple[str, ...] = ()
    row_count: int = 0

    @classmethod
    def not_judged(
        cls, check: str, file: str, expected: str, reason: str, *, column: str = ""
    ) -> DataFinding:
        """Return the finding of a check that could not look: a FAIL, since nothing passes by absence."""
        return cls(check, False, file, expected, NOT_JUDGED + reason, column=column)

    @property
    def judged(self) -> bool:
        """Whether the check could look at what it judges."""
        return not self.came.startswith(NOT_JUDGED)

    @property
    def verdict(self) -> str:
        """`PASS` or `FAIL`."""
        return "PASS" if self.passed else "FAIL"

    @property
    def where(self) -> str:
        """File, and column or key if the check is about one."""
        return f"{self.file} {self.column}".rstrip()

    @property
    def rows_left_out(self) -> int:
        """How many offending rows are not named; rows that share an id are named once."""
        return self.row_count - len(self.rows) if len(self.rows) == MAX_ROWS_NAMED else 0

    @property
    def sentence(self) -> str:
        """What was expected, what came, the rule and some offending rows, in one sentence."""
        rows = (
            f"; rows {name_some(self.rows, total=len(self.rows) + self.rows_left_out)}" if self.rows else ""
        )
        return f"expected {self.expected}, got {self.came} [{self.check}{rows}]"

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain JSON values."""
        return {
            "check": self.check,
            "verdict": self.verdict,
            "expected": self.expected,
            "came": self.came,
            "rows": list(self.rows),
            "row_count": self.row_count,
        }


def escape_unprintable(text: str) -> str:
    """Return `text` with control, direction and other invisible characters written as escapes."""
    return "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in text)


def quote(value: Any) -> str:
    """Return a value from data as a quoted text without control characters, cut to a readable length."""
    text = str(value)
    return repr(text if len(text) <= MAX_VALUE_LENGTH else text[: MAX_VALUE_LENGTH - 3] + "...")


def name_some(values: Iterable[Any], *, limit: int = 5, total: int | None = None) -> str:
    """Return up to `limit` quoted values, and how many of `total` (default: of the values) are left out."""
    shown = list(values)
    left_out = (len(shown) if total is None else total) - min(limit, len(shown))
    return ", ".join(quote(value) for value in shown[:limit]) + (f" and {left_out} more" if left_out else "")


def count_of(number: int, noun: str, plural: str = "") -> str:
    """Return a number and its noun, for example `1 row`, `2 rows`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def first_rows(ids: Sequence[str]) -> tuple[str, ...]:
    """Return the first `MAX_ROWS_NAMED` distinct ids, in order."""
    return tuple(dict.fromkeys(ids))[:MAX_ROWS_NAMED]
