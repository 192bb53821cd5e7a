# SPDX-License-Identifier: Apache-2.0
"""Attempts on a test split: which candidates were shown to it, in which order, and what each may err.

An attempt is a candidate that a test split had not seen before; looking at known bytes again is none. The
candidates that one run shows to the split for the first time are one round, one line of `attempts.jsonl`:

    {"candidates":[...],"first":3,"policy_sha256":...,"previous":...,"schema":"leangate/attempt/1","test_sha256":...}

`first` is the number of the first of them on that split, `previous` the SHA-256 of the line before on the
same split (null on its first line), so that no line but the last can go or change unnoticed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks.canonical import MAX_JSON_BYTES, read_json, read_json_text, sha256_bytes
from checks.errors import EvidenceError
from checks.policy import Policy
from checks.statistics.attempts import shared_alpha

__all__ = [
    "RECORD_SCHEMA",
    "Attempt",
    "Round",
    "expect_attempt",
    "find_attempt",
    "merge_rounds",
    "next_round",
    "read_attempt",
    "read_rounds",
]

LINE_SCHEMA = "leangate/attempt/1"
RECORD_SCHEMA = "leangate/attempts/1"

_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEYS = {"candidates", "first", "policy_sha256", "previous", "schema", "test_sha256"}
_RECORD_KEYS = {"schema", "test_sha256", "candidate_sha256", "attempt", "rounds"}
_MOST_CANDIDATES = 100
_CHANGED = "the file only ever grows: restore it from version control, lines and order as they were"


@dataclass(frozen=True)
class Round:
    """The candidates that one run showed to a test split for the first time.

    Attributes:
        test_sha256: Of the test split.
        first: Number of the first of them, >= 1.
        candidates: SHA-256 of each, at least one; numbered on from `first`.
        policy_sha256: Of the policy that lay there when they were entered.
        previous: SHA-256 of the line of the round before on the same split; None for the first round.
    """

    test_sha256: str
    first: int
    candidates: tuple[str, ...]
    policy_sha256: str
    previous: str | None

    @property
    def last(self) -> int:
        """Number of the last of its attempts."""
        return self.first + len(self.candidates) - 1

    @property
    def line(self) -> str:
        """The round as a line of `attempts.jsonl`, without the line's end."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))

    @property
    def sha256(self) -> str:
        """Of the line."""
        return sha256_bytes(self.line.encode())

    def to_json(self) -> dict[str, Any]:
        """Return the round as plain JSON values."""
        return {
            "schema": LINE_SCHEMA,
            "test_sha256": self.test_sha256,
            "first": self.first,
            "candidates": list(self.candidates),
            "policy_sha256": self.policy_sha256,
            "previous": self.previous,
        }


@dataclass(frozen=True)
class Attempt:
    """One candidate's attempt on one test split.

    Attributes:
        test_sha256: Of the test split.
        candidate_sha256: Of the candidate.
        number: The how manieth candidate it is that the split was shown, >= 1.
        rounds: Of this split, up to and with the candidate's.
    """

    test_sha256: str
    candidate_sha256: str
    number: int
    rounds: tuple[Round, ...]

    @property
    def shared(self) -> tuple[int, int]:
        """The first and the last attempt of its round, which share what they may err."""
        return self.rounds[-1].first, self.rounds[-1].last

    def alpha(self, policy: Policy) -> float:
        """Return the error probability that this attempt may use under `policy`.

        Raises:
            EvidenceError: if the policy planned fewer attempts.
        """
        alpha = shared_alpha(policy.alpha, *self.shared, policy.planned_attempts)
        if alpha <= 0:
            raise EvidenceError(
                f"expected one of the {policy.planned_attempts} attempts that the policy plans on one test "
                f"split, got attempt {self.number}",
                where="policy.yaml attempts.planned",
                hint="nothing may err any more on this test split: take a fresh one",
            )
        return alpha

    def to_json(self) -> dict[str, Any]:
        """Return the attempt as plain JSON values: the record that travels with the candidate."""
        return {
            "schema": RECORD_SCHEMA,
            "test_sha256": self.test_sha256,
            "candidate_sha256": self.candidate_sha256,
            "attempt": self.number,
            "rounds": [entry.to_json() for entry in self.rounds],
        }


def _digest(value: object, where: str) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise EvidenceError(f"expected a SHA-256, got {value!r:.80}", where=where, hint=_CHANGED)
    return value


def _keys(value: object, keys: set[str], schema: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or value.get("schema") != schema or set(value) != keys:
        raise EvidenceError(
            f"expected schema {schema} with the keys {sorted(keys)}, got {value!r:.120}",
            where=where,
            hint=_CHANGED,
        )
    return value


def _parse_round(value: object, where: str) -> Round:
    raw = _keys(value, _KEYS, LINE_SCHEMA, where)
    first, candidates = raw["first"], raw["candidates"]
    if type(first) is not int or not 1 <= first < 2**53:
        raise EvidenceError(f"expected a number from 1, got {first!r:.80}", where=f"{where} first")
    if not isinstance(candidates, list) or not 1 <= len(candidates) <= _MOST_CANDIDATES:
        raise EvidenceError(
            f"expected 1 to {_MOST_CANDIDATES} candidates, got {candidates!r:.80}",
            where=f"{where} candidates",
            hint=_CHANGED,
        )
    previous = raw["previous"]
    return Round(
        test_sha256=_digest(raw["test_sha256"], f"{where} test_sha256"),
        first=first,
        candidates=tuple(_digest(entry, f"{where} candidates") for entry in candidates),
        policy_sha256=_digest(raw["policy_sha256"], f"{where} policy_sha256"),
        previous=None if previous is None else _digest(previous, f"{where} previous"),
    )


def _expect_chain(rounds: Iterable[tuple[Round, str]]) -> None:
    """Refuse rounds that do not follow from each other on their test splits."""
    last: dict[str, Round] = {}
    seen: set[tuple[str, str]] = set()
    for entry, where in rounds:
        before = last.get(entry.test_sha256)
        want = (None, 1) if before is None else (before.sha256, before.last + 1)
        if (entry.previous, entry.first) != want:
            raise EvidenceError(
                f"expected attempt {want[1]} after the line with SHA-256 {want[0]}, "
                f"got attempt {entry.first} after {entry.previous}",
                where=where,
                hint=f"a line is missing, changed or moved; {_CHANGED}",
            )
        for candidate in entry.candidates:
            if (entry.test_sha256, candidate) in seen:
                raise EvidenceError(f"expected {candidate} once, got it again", where=where, hint=_CHANGED)
            seen.add((entry.test_sha256, candidate))
        last[entry.test_sha256] = entry


def read_rounds(path: Path) -> tuple[Round, ...]:
    """Read `attempts.jsonl`.

    Raises:
        EvidenceError: naming the line, if it is missing, or a line is malformed, changed, or does not follow
            from those before it.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise EvidenceError(f"expected at most {MAX_JSON_BYTES} bytes, got {size}", where=str(path))
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise EvidenceError(
            "expected the attempts on every test split, got no such file",
            where=str(path),
            hint="restore it from version control; only a new project starts with an empty file",
        ) from error
    except OSError as error:
        raise EvidenceError(f"expected a readable file, got {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise EvidenceError(f"expected lines of JSON, got {error}", where=str(path), hint=_CHANGED) from error
    rounds = []
    for number, line in enumerate(lines, 1):
        where = f"{path} line {number}"
        entry = _parse_round(read_json_text(line, where), where)
        if entry.line != line:
            raise EvidenceError("expected the line as it was written", where=where, hint=_CHANGED)
        rounds.append((entry, where))
    _expect_chain(rounds)
    return tuple(entry for entry, _ in rounds)


def next_round(
    rounds: Sequence[Round], test_sha256: str, candidates: Sequence[str], policy_sha256: str
) -> Round | None:
    """Return the round of those candidates that the test split was never shown, or None if it knows all."""
    of_split = [entry for entry in rounds if entry.test_sha256 == test_sha256]
    known = {candidate for entry in of_split for candidate in entry.candidates}
    new = tuple(dict.fromkeys(candidate for candidate in candidates if candidate not in known))
    if not new:
        return None
    last = of_split[-1] if of_split else None
    return Round(
        test_sha256=test_sha256,
        first=last.last + 1 if last else 1,
        candidates=new,
        policy_sha256=policy_sha256,
        previous=last.sha256 if last else None,
    )


def merge_rounds(ours: Sequence[Round], theirs: Sequence[Round]) -> tuple[Round, ...]:
    """Return our rounds, and after them the candidates that only the others know, in their order and runs."""
    merged = tuple(ours)
    for entry in theirs:
        new = next_round(merged, entry.test_sha256, entry.candidates, entry.policy_sha256)
        merged = merged if new is None else (*merged, new)
    return merged


def find_attempt(rounds: Sequence[Round], test_sha256: str, candidate_sha256: str) -> Attempt | None:
    """Return the attempt of a candidate on a test split, or None if it made none."""
    of_split = [entry for entry in rounds if entry.test_sha256 == test_sha256]
    for index, entry in enumerate(of_split):
        if candidate_sha256 in entry.candidates:
            number = entry.first + entry.candidates.index(candidate_sha256)
            return Attempt(test_sha256, candidate_sha256, number, tuple(of_split[: index + 1]))
    return None


def read_attempt(path: Path) -> Attempt | None:
    """Read the record of one attempt, and derive its number anew from the rounds it carries.

    Returns:
        The attempt; None if the record says that there was no candidate.

    Raises:
        EvidenceError: if the file is missing or malformed, or its number does not follow from its rounds.
    """
    where = str(path)
    raw = _keys(read_json(path), _RECORD_KEYS, RECORD_SCHEMA, where)
    test_sha256 = _digest(raw["test_sha256"], f"{where} test_sha256")
    if raw["candidate_sha256"] is None:
        return None
    candidate = _digest(raw["candidate_sha256"], f"{where} candidate_sha256")
    if not isinstance(raw["rounds"], list):
        raise EvidenceError("expected rounds", where=f"{where} rounds")
    places = [f"{where} rounds[{index}]" for index in range(len(raw["rounds"]))]
    rounds = [_parse_round(value, place) for value, place in zip(raw["rounds"], places, strict=True)]
    _expect_chain(zip(rounds, places, strict=True))
    attempt = find_attempt(rounds, test_sha256, candidate)
    if attempt is None or attempt.to_json() != raw:
        raise EvidenceError(
            f"expected the attempt that follows from its rounds, got attempt {raw['attempt']!r:.20} of "
            f"{candidate} among {len(rounds)} rounds",
            where=where,
            hint="run `dvc repro`",
        )
    return attempt


def expect_attempt(
    attempt: Attempt | None, *, test_sha256: str, candidate_sha256: str, where: str
) -> Attempt:
    """Return the attempt, if it is that of this candidate on this test split.

    Raises:
        EvidenceError: naming what was expected and what came.
    """
    for what, want, came in (
        ("the candidate", candidate_sha256, attempt.candidate_sha256 if attempt else None),
        ("the test split", test_sha256, attempt.test_sha256 if attempt else None),
    ):
        if want != came:
            raise EvidenceError(
                f"expected the attempt of {what} {want or 'of the evidence'}, got {came}",
                where=where,
                hint="run `dvc repro`: an attempt is written down before the test split is looked at",
            )
    if attempt is None:  # a digest is never None
        raise EvidenceError("expected an attempt, got none", where=where)
    return attempt
