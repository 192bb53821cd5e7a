# SPDX-License-Identifier: Apache-2.0
"""Typed reading of JSON values: what is missing or of another type is an error that names file and key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks.canonical import read_json
from checks.errors import EvidenceError, refuse_schema

__all__ = ["Fields", "expect_schema", "read_fields"]

_LARGEST = 2**63 - 1
_HINT = "run `dvc repro` to make this file again"


@dataclass(frozen=True)
class Fields:
    """One JSON object and the place it came from.

    Attributes:
        value: The object.
        where: File and key, for messages.
    """

    value: Mapping[str, Any]
    where: str

    def _wrong(self, key: str, expected: str, came: object) -> EvidenceError:
        text = "nothing" if key not in self.value else f"{type(came).__name__} {came!r}"[:120]
        return EvidenceError(f"expected {expected}, got {text}", where=f"{self.where} {key}", hint=_HINT)

    def text(self, key: str) -> str:
        """Return a string."""
        value = self.value.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "text", value)
        return value

    def maybe_text(self, key: str) -> str | None:
        """Return a string, or None for null or a missing key."""
        return None if self.value.get(key) is None else self.text(key)

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self.value.get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false", value)
        return value

    def count(self, key: str) -> int:
        """Return an integer >= 0."""
        value = self.value.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
            raise self._wrong(key, f"a whole number from 0 to {_LARGEST}", value)
        return value

    def maybe_count(self, key: str) -> int | None:
        """Return an integer >= 0, or None for null or a missing key."""
        return None if self.value.get(key) is None else self.count(key)

    def number(self, key: str) -> float:
        """Return a finite number."""
        return self._finite(key, self.value.get(key))

    def maybe_number(self, key: str) -> float | None:
        """Return a finite number, or None for null or a missing key."""
        return None if self.value.get(key) is None else self.number(key)

    def maybe_interval(self, key: str) -> tuple[float, float] | None:
        """Return two finite numbers, the lower first, or None for null or a missing key."""
        value = self.value.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != 2:
            raise self._wrong(key, "a lower and an upper end", value)
        low, high = (self._finite(key, end) for end in value)
        if low > high:
            raise self._wrong(key, "the lower end first", value)
        return low, high

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings."""
        value = self.value.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self._wrong(key, "a list of texts", value)
        return tuple(value)

    def inner(self, key: str) -> Fields:
        """Return an object."""
        value = self.value.get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object", value)
        return Fields(value, f"{self.where} {key}")

    def maybe_inner(self, key: str) -> Fields | None:
        """Return an object, or None for null or a missing key."""
        return None if self.value.get(key) is None else self.inner(key)

    def entries(self, key: str) -> Iterator[Fields]:
        """Yield the objects of a list."""
        value = self.value.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise self._wrong(key, "a list of objects", value)
        for index, entry in enumerate(value):
            yield Fields(entry, f"{self.where} {key}[{index}]")

    def _finite(self, key: str, value: object) -> float:
        # JSON cannot write an infinity, but 1e999 reads as one, and an integer may exceed every float.
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST:
            return float(value)
        raise self._wrong(key, f"a finite number up to {_LARGEST}", value)


def read_fields(path: Path, schema: str) -> Fields:
    """Read a JSON file whose `schema` must be `schema`.

    Args:
        path: The file; only its name and its folder's appear in messages and never in a report.
        schema: For example `leangate/decision/1`.

    Raises:
        EvidenceError: if the file is missing, not JSON, or of another schema.
    """
    return expect_schema(read_json(path), schema, str(path))


def expect_schema(value: object, schema: str, where: str) -> Fields:
    """Return `value` as fields if it is an object of this schema, else raise `EvidenceError`."""
    came = value.get("schema") if isinstance(value, dict) else type(value).__name__
    if not isinstance(value, dict) or came != schema:
        raise refuse_schema(schema, came, where, _HINT)
    return Fields(value, where)
