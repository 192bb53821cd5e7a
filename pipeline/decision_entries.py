# SPDX-License-Identifier: Apache-2.0
"""What a decision consists of, typed: readings, and findings with their verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.waiver import Waiver

__all__ = ["Finding", "Reading", "Side", "attribute_of"]

Side = Literal["at least", "at most"]

_SIDES: dict[str, Side] = {"margin": "at least", "min": "at least", "max": "at most"}


def attribute_of(where: str) -> str:
    """Return the attribute of a slice in words, empty for all examples."""
    return "" if where == "overall" else where.partition("=")[0]


def _subject(where: str, versus: str | None, target: str) -> str:
    words = f"{where} against {versus}" if versus else where
    return f"{words} for {target}" if target and words else words


@dataclass(frozen=True)
class Reading:
    """One measurement as the decision recorded it.

    Attributes:
        metric: As policies name it.
        slice: `overall`, `attribute=level`, or the attribute alone where its levels were compared and no
            pair of them has a value.
        versus: The second slice of a comparison between slices, else None.
        target: The class or the operating point it is about, else empty.
        value: In `unit`.
        interval: Each end a one-sided 95 % bound, or None where there is no sampling error.
        n: Independent units behind it.
        unit: `proportion`, `ratio`, `bytes`, `count`, `ms`, `1`; `proxy`, a ratio never judged.
        levels: Of the attribute, where all of them were compared with each other; else none.
    """

    metric: str
    slice: str
    versus: str | None
    target: str
    value: float
    interval: tuple[float, float] | None
    n: int
    unit: str
    levels: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        """The slice, or the pair of slices, and the target, in words."""
        return _subject(self.slice, self.versus, self.target)


@dataclass(frozen=True)
class Finding:
    """One rule applied to one measurement, or to the lack of one.

    Attributes:
        rule: Its name in the policy.
        kind: `assert`, `bounded`, `screen`.
        blocking: Whether the gate waits for it.
        listed: A cell too small to be judged alone; its parents are judged.
        verdict: Of the rule.
        reason: Why it is INCONCLUSIVE, else empty.
        metric: What the rule bounds.
        slice: As of a reading; empty where nothing was measured.
        versus: The second slice of a comparison between slices, else None.
        target: The class or the operating point it is about, else empty.
        value: In `unit`, or None where nothing was measured.
        interval: Each end a one-sided 95 % bound.
        bound: The one-sided bound that decides.
        limit: The edge, in `unit`; the level of a screen.
        limit_kind: `margin`, `min`, `max`, `alarm`.
        p: The p-value that decides, where there is one.
        detectable: The smallest harm that would be told from none in four cases of five.
        n: Independent units.
        unit: As of a reading; `1` where nothing says it.
        method: Which statistic decided.
        message: One sentence for people.
        further_examples: That would settle it if what was seen holds, where known.
        further_if_equal: The same if the models are in truth equal.
        rule_reason: Why the policy has this rule.
        waiver: What lets it through although it is not settled, or None.
    """

    rule: str
    kind: str
    blocking: bool
    listed: bool
    verdict: str
    reason: str
    metric: str
    slice: str
    versus: str | None
    target: str
    value: float | None
    interval: tuple[float, float] | None
    bound: float | None
    limit: float
    limit_kind: str
    p: float | None
    detectable: float | None
    n: int | None
    unit: str
    method: str
    message: str
    further_examples: int | None
    further_if_equal: int | None
    rule_reason: str
    waiver: Waiver | None = None

    @property
    def settled(self) -> bool:
        """Whether it says what a rule of its kind must say; any other word, known or not, wants attention."""
        return self.verdict == ("NO-FINDING" if self.kind == "screen" else "PASS")

    @property
    def quiet(self) -> bool:
        """Whether it is only listed: nothing waits for it, and its parents are judged."""
        return self.listed and self.verdict == "INCONCLUSIVE" and not self.blocking

    @property
    def stops(self) -> bool:
        """Whether it keeps the gate shut: what blocks, is not settled and not waived; and any ERROR."""
        return not self.settled and (self.verdict == "ERROR" or (self.blocking and self.waiver is None))

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What tells it from every other finding of a decision on something that was measured."""
        return self.rule, self.slice, self.versus or "", self.target

    @property
    def subject(self) -> str:
        """The slice, or the pair of slices, and the target, in words; empty where nothing was measured."""
        return _subject(self.slice, self.versus, self.target)

    @property
    def side(self) -> Side | None:
        """Whether the limit is a floor or a ceiling of the value; None for a search."""
        return _SIDES.get(self.limit_kind)

    def room(self, number: float | None) -> float | None:
        """Return how far `number` lies inside the limit (> 0) or beyond it (< 0), or None if unknown."""
        if number is None or self.side is None:
            return None
        return number - self.limit if self.side == "at least" else self.limit - number
