# SPDX-License-Identifier: Apache-2.0
"""`policy.yaml`: the rules that bound measurements, as the risk owner wrote them.

A rule names a metric, the slices it holds on, and one limit:

    margin   candidate minus baseline must be above `-margin`      paired changes
    min      the value must be at least this                       shares, counts, sizes
    max      the value must be at most this                        gaps, ratios, counts, sizes
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from checks.errors import PolicyError
from checks.measurement import Measurement, Method, Slice
from checks.protocol import look_up

__all__ = ["Kind", "Limit", "Policy", "Rule", "matches", "parse_policy"]

Kind = Literal["assert", "bounded"]
Limit = Literal["margin", "min", "max"]

_LIMITS: Mapping[Method, tuple[Limit, ...]] = {
    Method.PAIRED_EXACT: ("margin",),
    Method.MOVER_TANGO: ("max",),
    Method.CLOPPER_PEARSON: ("min", "max"),
    Method.HODGES_LEHMANN: ("max",),
    Method.EXACT_VALUE: ("min", "max"),
}
_POLICY_KEYS = {"version", "name", "alpha", "alpha_fail", "rules"}
_RULE_KEYS = {
    "id",
    "kind",
    "metric",
    "slices",
    "margin",
    "min",
    "max",
    "blocking",
    "control_tolerance",
    "reason",
}
_ID = re.compile(r"[a-z][a-z0-9-]{0,59}")


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        id: Unique name.
        kind: `assert` or `bounded`.
        metric: What is measured.
        method: How the metric is measured.
        slices: `overall`, an attribute (each of its levels), or `attribute=level`.
        limit: Which limit `value` is.
        value: The limit.
        blocking: Whether a verdict other than PASS keeps the decision closed.
        control_tolerance: For latency: how far the ratio of two copies of one file may lie from 1.
        reason: Why the limit is what it is.
        where: Place in the file, for messages.
    """

    id: str
    kind: Kind
    metric: str
    method: Method
    slices: tuple[str, ...]
    limit: Limit
    value: float
    blocking: bool
    control_tolerance: float
    reason: str
    where: str


@dataclass(frozen=True)
class Policy:
    """All rules, and the error they may make.

    Attributes:
        name: For people.
        alpha: Largest probability of PASS given that a rule is violated, shared by the finalists of a run.
        alpha_fail: Largest probability that any FAIL of one candidate is false.
        rules: At least one, at least one of them blocking.
    """

    name: str
    alpha: float
    alpha_fail: float
    rules: tuple[Rule, ...]


def matches(rule: Rule, measurement: Measurement) -> bool:
    """Return whether `rule` bounds `measurement`."""
    if rule.metric != measurement.metric:
        return False
    where: Slice = measurement.slice
    return any(selector in (str(where), where.attribute) for selector in rule.slices)


def _known(value: Any, keys: set[str], where: str, file: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise PolicyError(
            f"expected keys and values, got {type(value).__name__}", where=f"{file} {where}".strip()
        )
    unknown = sorted(str(key) for key in value if key not in keys)
    if unknown:
        raise PolicyError(
            f"expected keys among {sorted(keys)}, got {unknown}",
            where=f"{file} {where}".strip(),
            hint="a misspelt key would be a rule that never holds",
        )
    return value


def _number(value: Any, where: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < math.inf:
        raise PolicyError(f"expected a finite number, got {value!r}", where=where)
    if not low <= value <= high:
        raise PolicyError(f"expected a number in [{low:g}, {high:g}], got {value:g}", where=where)
    return float(value)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise PolicyError(f"expected text, got {value!r}", where=where)
    return value.strip()


def _parse_limit(raw: Mapping[str, Any], method: Method, where: str) -> tuple[Limit, float]:
    allowed = _LIMITS[method]
    given: list[Limit] = [name for name in ("margin", "min", "max") if name in raw]
    if len(given) != 1 or given[0] not in allowed:
        raise PolicyError(f"expected exactly one of {list(allowed)}, got {given}", where=where)
    limit = given[0]
    low, high = {
        Method.PAIRED_EXACT: (1e-4, 0.5),
        Method.MOVER_TANGO: (1e-4, 1.0),
        Method.CLOPPER_PEARSON: (0.0, 1.0),
        Method.HODGES_LEHMANN: (0.01, 100.0),
        Method.EXACT_VALUE: (-1e15, 1e15),
    }[method]
    return limit, _number(raw[limit], f"{where}.{limit}", low, high)


def _parse_tolerance(raw: Mapping[str, Any], method: Method, value: float, where: str) -> float:
    if method is not Method.HODGES_LEHMANN:
        if "control_tolerance" in raw:
            raise PolicyError("expected no control_tolerance but on a latency ratio", where=where)
        return 0.0
    if "control_tolerance" in raw:
        return _number(raw["control_tolerance"], f"{where}.control_tolerance", 0.001, 0.25)
    if value == 1:
        raise PolicyError(
            "expected control_tolerance, got none; it cannot follow from max: 1",
            where=where,
            hint="say how far the ratio of two copies of one file may lie from 1, 0.05 for example",
        )
    return abs(value - 1) / 4


def _parse_slices(raw: Mapping[str, Any], where: str) -> tuple[str, ...]:
    slices = raw.get("slices", ["overall"])
    if not isinstance(slices, list) or not slices:
        raise PolicyError(f"expected a list of slices, got {slices!r}", where=f"{where}.slices")
    names = tuple(_text(entry, f"{where}.slices") for entry in slices)
    if len(set(names)) != len(names):
        raise PolicyError(f"expected each slice once, got {list(names)}", where=f"{where}.slices")
    return names


def _parse_rule(value: Any, index: int, methods: Mapping[str, Method], file: str) -> Rule:
    where = f"{file} rules[{index}]"
    raw = _known(value, _RULE_KEYS, f"rules[{index}]", file)
    name = _text(raw.get("id"), f"{where}.id")
    if not _ID.fullmatch(name):
        raise PolicyError(f"expected lower-case letters, digits and '-', got {name!r}", where=f"{where}.id")
    metric = _text(raw.get("metric"), f"{where}.metric")
    method = look_up(metric, methods)
    if method is None:
        raise PolicyError(
            f"expected a metric that a check measures {sorted(methods)}, got {metric!r}",
            where=f"{where}.metric",
        )
    kind: Kind = "assert" if method is Method.EXACT_VALUE else "bounded"
    if raw.get("kind") != kind:
        raise PolicyError(
            f"expected kind {kind!r} for metric {metric}, got {raw.get('kind')!r}", where=f"{where}.kind"
        )
    blocking = raw.get("blocking", True)
    if not isinstance(blocking, bool):
        raise PolicyError(f"expected true or false, got {blocking!r}", where=f"{where}.blocking")
    limit, number = _parse_limit(raw, method, where)
    return Rule(
        id=name,
        kind=kind,
        metric=metric,
        method=method,
        slices=_parse_slices(raw, where),
        limit=limit,
        value=number,
        blocking=blocking,
        control_tolerance=_parse_tolerance(raw, method, number, where),
        reason=_text(raw.get("reason"), f"{where}.reason"),
        where=where,
    )


def parse_policy(value: Any, methods: Mapping[str, Method], file: str = "policy.yaml") -> Policy:
    """Parse the content of a policy file.

    Args:
        value: What the YAML file holds.
        methods: Every metric that checks measure, and how.
        file: Name of the file, for messages.

    Raises:
        PolicyError: naming file and key, if anything is missing, unknown, out of range or contradictory.
    """
    raw = _known(value, _POLICY_KEYS, "", file)
    if type(raw.get("version")) is not int or raw["version"] != 1:
        raise PolicyError(f"expected version 1, got {raw.get('version')!r}", where=f"{file} version")
    rules: Sequence[Any] | Any = raw.get("rules")
    if not isinstance(rules, list) or not rules:
        raise PolicyError(
            "expected at least one rule, got none: nothing passes by absence", where=f"{file} rules"
        )
    parsed = tuple(_parse_rule(rule, index, methods, file) for index, rule in enumerate(rules))
    names = [rule.id for rule in parsed]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise PolicyError(f"expected each id once, got {repeated} more than once", where=f"{file} rules")
    if not any(rule.blocking for rule in parsed):
        raise PolicyError(
            "expected at least one blocking rule, got advisory rules only", where=f"{file} rules"
        )
    return Policy(
        name=_text(raw.get("name"), f"{file} name"),
        alpha=_number(raw.get("alpha"), f"{file} alpha", 0.001, 0.2),
        alpha_fail=_number(raw.get("alpha_fail"), f"{file} alpha_fail", 0.001, 0.2),
        rules=parsed,
    )
