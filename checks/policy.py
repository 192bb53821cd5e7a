# SPDX-License-Identifier: Apache-2.0
"""`policy.yaml`: the rules that bound measurements, as the risk owner wrote them.

A rule names a metric, the slices it holds on, and one limit:

    margin   the candidate must be worse by less than this         paired changes
    min      the value must be at least this                       shares, ratios of groups, counts, sizes
    max      the value must be at most this                        gaps, ratios of times, counts, sizes
    alarm    the search must not be significant at this level      screens

A slice is `overall`, an attribute (each of its levels), `attribute=level`, or `attribute*attribute` (each
combination of levels that is large enough to be judged). A metric that compares groups takes attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from checks.errors import PolicyError
from checks.measurement import GROUPED, Measurement, Method, Slice
from checks.policy_values import known_keys, number_of, text_of
from checks.protocol import Metric, Targets, look_up
from checks.waiving import Waiving, parse_waivable, parse_waiving

__all__ = ["Kind", "Limit", "OperatingPoint", "Policy", "Rule", "kind_of", "matches", "parse_policy"]

Kind = Literal["assert", "bounded", "screen"]
Limit = Literal["margin", "min", "max", "alarm"]

_LIMITS: Mapping[Method, tuple[Limit, ...]] = {
    Method.PAIRED_EXACT: ("margin",),
    Method.CLOPPER_PEARSON: ("min", "max"),
    Method.MOVER_TANGO: ("max",),
    Method.MIETTINEN_NURMINEN: ("max",),
    Method.MOVER_WILSON: ("min",),
    Method.HODGES_LEHMANN: ("max",),
    Method.BOOTSTRAP_T: ("margin",),
    Method.JACKKNIFE_T: ("margin",),
    Method.ORDER_STATISTIC: ("max",),
    Method.EXACT_TEST: ("alarm",),
    Method.EXACT_VALUE: ("min", "max"),
}
_RANGES: Mapping[Method, tuple[float, float]] = {
    Method.PAIRED_EXACT: (1e-4, 0.5),
    Method.CLOPPER_PEARSON: (0.0, 1.0),
    Method.MOVER_TANGO: (1e-4, 1.0),
    Method.MIETTINEN_NURMINEN: (1e-4, 1.0),
    Method.MOVER_WILSON: (0.01, 1.0),
    Method.HODGES_LEHMANN: (0.01, 100.0),
    Method.BOOTSTRAP_T: (1e-4, 1.0),
    Method.JACKKNIFE_T: (1e-4, 1.0),
    Method.ORDER_STATISTIC: (1e-6, 1e9),
    Method.EXACT_TEST: (1e-6, 0.1),
    Method.EXACT_VALUE: (-1e15, 1e15),
}
_VACUOUS = {
    (Method.CLOPPER_PEARSON, "max", 1.0),
    (Method.CLOPPER_PEARSON, "min", 0.0),
    (Method.MIETTINEN_NURMINEN, "max", 1.0),
}
_POLICY_KEYS = {
    *("version", "name", "alpha", "alpha_fail", "attempts", "checks", "operating_points", "rules", "waivers")
}
_POINT_KEYS = {"name", "class", "threshold", "reason"}
_RULE_KEYS = {
    "id",
    "kind",
    "metric",
    "slices",
    "classes",
    "operating_points",
    "margin",
    "min",
    "max",
    "alarm",
    "min_n",
    "blocking",
    "waivable",
    "control_tolerance",
    "reason",
}
_MOST_UNITS = 10**9
_MOST_ATTEMPTS = 10_000
_ID = re.compile(r"[a-z][a-z0-9-]{0,59}")


@dataclass(frozen=True)
class OperatingPoint:
    """A score threshold at which one class is called, fixed on data that no gate looks at.

    Attributes:
        name: Unique name.
        target: The class that is called.
        threshold: Least probability of it, in (0, 1).
        reason: Where the threshold comes from.
    """

    name: str
    target: str
    threshold: float
    reason: str


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        id: Unique name.
        kind: `assert`, `bounded` or `screen`.
        metric: What is measured.
        method: How the metric is measured.
        per: What the metric is measured once for each of, if anything.
        slices: `overall`, an attribute (each of its levels), `attribute=level`, `attribute*attribute`.
        targets: The classes or operating points it holds for; empty for all of them.
        limit: Which limit `value` is.
        value: The limit.
        min_n: Fewest independent units on which it may pass, >= 1.
        blocking: Whether a verdict other than PASS or NO-FINDING keeps the decision closed.
        control_tolerance: For latency: how far the ratio of two copies of one file may lie from 1.
        reason: Why the limit is what it is.
        where: Place in the file, for messages.
        waivable: Whether an approver may waive what it finds.
    """

    id: str
    kind: Kind
    metric: str
    method: Method
    per: Targets
    slices: tuple[str, ...]
    targets: tuple[str, ...]
    limit: Limit
    value: float
    min_n: int
    blocking: bool
    control_tolerance: float
    reason: str
    where: str
    waivable: bool = False


@dataclass(frozen=True)
class Policy:
    """All rules, and the error they may make.

    Attributes:
        name: For people.
        alpha: Largest probability that any candidate which violates a rule gets PASS, shared by all attempts
            on one test split.
        alpha_fail: Largest probability that any FAIL of one candidate is false.
        rules: At least one, at least one of them blocking and no screen.
        checks: Names of the checks of other distributions that the rules rely on.
        operating_points: Thresholds that sensitivity and specificity are measured at.
        waiving: Who may waive findings, and for how long; None lets nobody.
        planned_attempts: How many attempts on one test split share alpha equally; None for any number, of
            which the first has the most.
    """

    name: str
    alpha: float
    alpha_fail: float
    rules: tuple[Rule, ...]
    checks: tuple[str, ...] = ()
    operating_points: tuple[OperatingPoint, ...] = ()
    waiving: Waiving | None = None
    planned_attempts: int | None = None

    @property
    def crossings(self) -> tuple[str, ...]:
        """The combinations of attributes that rules name, each once, in order."""
        named = [selector for rule in self.rules for selector in rule.slices if "*" in selector]
        return tuple(dict.fromkeys(named))


def kind_of(method: Method) -> Kind:
    """Return the only kind of rule that may bound what is measured by `method`."""
    if method is Method.EXACT_VALUE:
        return "assert"
    return "screen" if method is Method.EXACT_TEST else "bounded"


def matches(rule: Rule, measurement: Measurement) -> bool:
    """Return whether `rule` bounds `measurement`."""
    if rule.metric != measurement.metric:
        return False
    if rule.targets and measurement.target not in rule.targets:
        return False
    where: Slice = measurement.slice
    return any(selector in (str(where), where.attribute) for selector in rule.slices)


def _parse_limit(raw: Mapping[str, Any], declared: Metric, where: str) -> tuple[Limit, float]:
    method = declared.method
    allowed = [name for name in _LIMITS[method] if declared.limits is None or name in declared.limits]
    given: list[Limit] = [name for name in ("margin", "min", "max", "alarm") if name in raw]
    if len(given) != 1 or given[0] not in allowed:
        raise PolicyError(f"expected exactly one of {allowed}, got {given}", where=where)
    limit = given[0]
    value = number_of(raw[limit], f"{where}.{limit}", *_RANGES[method])
    if (method, limit, value) in _VACUOUS:
        raise PolicyError(
            f"expected a limit that a candidate can break, got {limit}: {value:g} of a share",
            where=f"{where}.{limit}",
        )
    return limit, value


def _parse_names(raw: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = raw[key]
    if not isinstance(value, list) or not value:
        raise PolicyError(f"expected a list of names, got {value!r}", where=f"{where}.{key}")
    names = tuple(text_of(entry, f"{where}.{key}") for entry in value)
    if len(set(names)) != len(names):
        raise PolicyError(f"expected each name once, got {list(names)}", where=f"{where}.{key}")
    return names


def _parse_targets(raw: Mapping[str, Any], per: Targets, where: str) -> tuple[str, ...]:
    keys: dict[str, Targets] = {"classes": "class", "operating_points": "operating_point"}
    for key, meant in keys.items():
        if key in raw and meant != per:
            raise PolicyError(f"expected no {key} for metric {raw['metric']}", where=f"{where}.{key}")
        if key in raw:
            return _parse_names(raw, key, where)
    return ()


def _parse_tolerance(raw: Mapping[str, Any], declared: Metric, value: float, where: str) -> float:
    if not declared.control:
        if "control_tolerance" in raw:
            raise PolicyError("expected no control_tolerance but on a latency ratio", where=where)
        return 0.0
    if "control_tolerance" in raw:
        return number_of(raw["control_tolerance"], f"{where}.control_tolerance", 0.001, 0.25)
    if value == 1:
        raise PolicyError(
            "expected control_tolerance, got none; it cannot follow from max: 1",
            where=where,
            hint="say how far the ratio of two copies of one file may lie from 1, 0.05 for example",
        )
    return abs(value - 1) / 4


def _parse_slices(raw: Mapping[str, Any], declared: Metric, where: str) -> tuple[str, ...]:
    method = declared.method
    if "slices" not in raw:
        if method in GROUPED:
            raise PolicyError("expected slices, got none: attributes to compare", where=f"{where}.slices")
        if declared.places == "levels":
            raise PolicyError(
                f"expected slices, got none: {raw['metric']} is measured on levels of attributes",
                where=f"{where}.slices",
            )
        return ("overall",)
    names = _parse_names(raw, "slices", where)
    wrong = [name for name in names if name == "overall" or "=" in name]
    if method in GROUPED and wrong:
        raise PolicyError(
            f"expected attributes, got {wrong}: {raw['metric']} compares the levels of an attribute",
            where=f"{where}.slices",
        )
    if declared.places == "overall" and names != ("overall",):
        raise PolicyError(
            f"expected no slices, got {list(names)}: {raw['metric']} is measured on all examples",
            where=f"{where}.slices",
        )
    if declared.places == "levels" and "overall" in names:
        raise PolicyError(
            f"expected attributes, got overall: {raw['metric']} is measured on levels of attributes",
            where=f"{where}.slices",
        )
    return names


def _parse_min_n(raw: Mapping[str, Any], kind: Kind, where: str) -> int:
    if "min_n" not in raw:
        return 1
    value = raw["min_n"]
    if kind != "bounded":
        raise PolicyError(f"expected no min_n but on a bounded rule, got {value!r}", where=f"{where}.min_n")
    if type(value) is not int or not 1 <= value <= _MOST_UNITS:
        raise PolicyError(f"expected a whole number above 0, got {value!r}", where=f"{where}.min_n")
    return value


def _parse_rule(value: Any, index: int, metrics: Mapping[str, Metric], file: str) -> Rule:
    where = f"{file} rules[{index}]"
    raw = known_keys(value, _RULE_KEYS, f"rules[{index}]", file)
    name = text_of(raw.get("id"), f"{where}.id")
    if not _ID.fullmatch(name):
        raise PolicyError(f"expected lower-case letters, digits and '-', got {name!r}", where=f"{where}.id")
    metric = text_of(raw.get("metric"), f"{where}.metric")
    declared = look_up(metric, metrics)
    if declared is None:
        close = get_close_matches(metric, metrics, n=3, cutoff=0.4)
        raise PolicyError(
            f"expected a metric that a check measures, got {metric!r}",
            where=f"{where}.metric",
            hint=f"{'close to it' if close else 'there are'}: {', '.join(close or sorted(metrics))}",
        )
    if not declared.gateable:
        raise PolicyError(
            f"expected a metric that may be judged, got {metric}: it is a proxy, shown for information",
            where=f"{where}.metric",
        )
    kind = kind_of(declared.method)
    if raw.get("kind") != kind:
        raise PolicyError(
            f"expected kind {kind!r} for metric {metric}, got {raw.get('kind')!r}", where=f"{where}.kind"
        )
    blocking = raw.get("blocking", True)
    if not isinstance(blocking, bool):
        raise PolicyError(f"expected true or false, got {blocking!r}", where=f"{where}.blocking")
    limit, number = _parse_limit(raw, declared, where)
    return Rule(
        id=name,
        kind=kind,
        metric=metric,
        method=declared.method,
        per=declared.targets,
        slices=_parse_slices(raw, declared, where),
        targets=_parse_targets(raw, declared.targets, where),
        limit=limit,
        value=number,
        min_n=_parse_min_n(raw, kind, where),
        blocking=blocking,
        control_tolerance=_parse_tolerance(raw, declared, number, where),
        reason=text_of(raw.get("reason"), f"{where}.reason"),
        where=where,
        waivable=parse_waivable(raw, kind, blocking=blocking, where=where),
    )


def _parse_point(value: Any, index: int, file: str) -> OperatingPoint:
    where = f"{file} operating_points[{index}]"
    raw = known_keys(value, _POINT_KEYS, f"operating_points[{index}]", file)
    return OperatingPoint(
        name=text_of(raw.get("name"), f"{where}.name"),
        target=text_of(raw.get("class"), f"{where}.class"),
        threshold=number_of(raw.get("threshold"), f"{where}.threshold", 1e-6, 1 - 1e-6),
        reason=text_of(raw.get("reason"), f"{where}.reason"),
    )


def _parse_points(raw: Mapping[str, Any], file: str) -> tuple[OperatingPoint, ...]:
    value = raw.get("operating_points", [])
    if not isinstance(value, list):
        raise PolicyError(f"expected a list, got {value!r}", where=f"{file} operating_points")
    points = tuple(_parse_point(entry, index, file) for index, entry in enumerate(value))
    if len({point.name for point in points}) != len(points):
        raise PolicyError("expected each name once", where=f"{file} operating_points")
    return points


def _parse_attempts(raw: Mapping[str, Any], file: str) -> int | None:
    if "attempts" not in raw:
        return None
    value = known_keys(raw["attempts"], {"planned"}, "attempts", file).get("planned")
    if type(value) is not int or not 1 <= value <= _MOST_ATTEMPTS:
        raise PolicyError(
            f"expected a whole number from 1 to {_MOST_ATTEMPTS}, got {value!r}",
            where=f"{file} attempts.planned",
            hint="how many candidates this test split will ever be shown; leave attempts out for any number",
        )
    return value


def _check_points_named(rules: Sequence[Rule], points: Sequence[OperatingPoint]) -> None:
    known = [point.name for point in points]
    for rule in rules:
        if rule.per != "operating_point":
            continue
        strangers = [name for name in rule.targets if name not in known]
        if strangers or not known:
            raise PolicyError(
                f"expected operating points among {known}, got {strangers or 'none'}",
                where=f"{rule.where}.operating_points",
                hint="declare them under operating_points: name, class, threshold, reason",
            )


def parse_policy(value: Any, metrics: Mapping[str, Metric], file: str = "policy.yaml") -> Policy:
    """Parse the content of a policy file.

    Args:
        value: What the YAML file holds.
        metrics: Every metric that checks measure.
        file: Name of the file, for messages.

    Raises:
        PolicyError: naming file and key, if anything is missing, unknown, out of range or contradictory.
    """
    raw = known_keys(value, _POLICY_KEYS, "", file)
    if type(raw.get("version")) is not int or raw["version"] != 1:
        raise PolicyError(f"expected version 1, got {raw.get('version')!r}", where=f"{file} version")
    rules: Sequence[Any] | Any = raw.get("rules")
    if not isinstance(rules, list) or not rules:
        raise PolicyError(
            "expected at least one rule, got none: nothing passes by absence", where=f"{file} rules"
        )
    parsed = tuple(_parse_rule(rule, index, metrics, file) for index, rule in enumerate(rules))
    names = [rule.id for rule in parsed]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise PolicyError(f"expected each id once, got {repeated} more than once", where=f"{file} rules")
    if not any(rule.blocking and rule.kind != "screen" for rule in parsed):
        raise PolicyError(
            "expected at least one blocking rule that proves something, got advisory rules and screens only",
            where=f"{file} rules",
        )
    points = _parse_points(raw, file)
    _check_points_named(parsed, points)
    return Policy(
        name=text_of(raw.get("name"), f"{file} name"),
        alpha=number_of(raw.get("alpha"), f"{file} alpha", 0.001, 0.2),
        alpha_fail=number_of(raw.get("alpha_fail"), f"{file} alpha_fail", 0.001, 0.2),
        rules=parsed,
        checks=_parse_names(raw, "checks", file) if "checks" in raw else (),
        operating_points=points,
        waiving=parse_waiving(raw, file),
        planned_attempts=_parse_attempts(raw, file),
    )
