# SPDX-License-Identifier: Apache-2.0
"""Checks of other distributions, by the names a policy gives under `checks`.

A distribution offers a check through the entry-point group `leangate.checks`: the entry point's name is the
check's, its value a class without arguments, or an instance. Only what a policy names is ever imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points

from checks.errors import CheckError, PolicyError
from checks.protocol import Check, Metric, look_up, metrics_of

__all__ = ["GROUP", "load_checks", "origin_of"]

GROUP = "leangate.checks"
"""The entry-point group."""


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


def _find(name: str, where: str) -> EntryPoint:
    offered = entry_points(group=GROUP)
    found = [entry for entry in offered if entry.name == name]
    if not found:
        raise PolicyError(
            f"expected checks among the installed {sorted({entry.name for entry in offered})}, got {name!r}",
            where=where,
            hint="install the distribution that brings it, into the environment of dvc",
        )
    if len(found) > 1:
        raise CheckError(
            f"expected one distribution that brings check {name!r}, got "
            f"{' and '.join(sorted(_distribution(entry) for entry in found))}",
            where=where,
            hint="uninstall one of them",
        )
    return found[0]


def _load(name: str, where: str) -> Check:
    entry = _find(name, where)
    origin = f"check {name!r} of {_distribution(entry)}"
    try:
        loaded = entry.load()
        check: Check = loaded() if isinstance(loaded, type) else loaded
        declared: object = check.metrics
        complete = isinstance(declared, Mapping) and bool(declared) and callable(check.measure)
        named = check.name == name
    except (Exception, SystemExit) as error:  # other people's code may do anything while it is imported
        raise CheckError(
            f"expected {origin} to load, got {type(error).__name__}: {error}", where=where
        ) from error
    if not named:
        raise CheckError(f"expected {origin} to have that name, got {check.name!r}", where=where)
    if not complete or not all(isinstance(metric, Metric) for metric in check.metrics.values()):
        raise CheckError(f"expected {origin} to declare metrics, got {declared!r}", where=where)
    return check


def _overlap(offered: Mapping[str, Metric], taken: Mapping[str, Metric]) -> list[str]:
    """Return the offered metrics that are taken; `a_b*` takes `a_b64`, and the other way round."""

    def sample(name: str) -> str:
        return name.replace("*", "1")

    return sorted(
        name
        for name in offered
        if look_up(sample(name), taken) is not None
        or any(look_up(sample(other), {name: offered[name]}) is not None for other in taken)
    )


def origin_of(name: str) -> str:
    """Return name and version of the distribution that brings the check `name`.

    Raises:
        PolicyError: if none does.
        CheckError: if two do.
    """
    return _distribution(_find(name, "checks"))


def load_checks(
    names: Sequence[str], built_in: Sequence[Check], file: str = "policy.yaml"
) -> tuple[Check, ...]:
    """Load the checks a policy names.

    Args:
        names: Of entry points, each once.
        built_in: The checks that are there already.
        file: Name of the policy file, for messages.

    Returns:
        The built-in checks, then those loaded, in the order of `names`.

    Raises:
        PolicyError: if nothing installed brings a check of that name.
        CheckError: if two distributions bring one, it cannot be loaded, or another check has its name or
            one of its metrics.
    """
    where = f"{file} checks"
    checks = list(built_in)
    for name in names:
        origin = f"check {name!r} of {_distribution(_find(name, where))}"
        if name in [check.name for check in checks]:
            raise CheckError(f"expected a name no other check has, got {origin}", where=where)
        check = _load(name, where)
        taken = _overlap(check.metrics, metrics_of(checks))
        if taken:
            raise CheckError(
                f"expected metrics no other check measures, got {taken} of {origin}", where=where
            )
        checks.append(check)
    return tuple(checks)
