# SPDX-License-Identifier: Apache-2.0
"""`policy.yaml` read from disk, with the digest of its bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from checks.canonical import sha256_file
from checks.errors import PolicyError
from checks.latency import FEWEST
from checks.measurement import OVERALL, Method
from checks.outcomes import ATTACK, LABEL
from checks.plugins import load_checks, origin_of
from checks.policy import Policy, parse_policy
from checks.protocol import Check, built_in_checks, metrics_of
from pipeline.params import Params, load_yaml

__all__ = ["PolicyFile", "expect_measured", "load_policy"]


@dataclass(frozen=True)
class PolicyFile:
    """A policy, the SHA-256 of the file it came from, and the checks it refers to.

    Attributes:
        policy: The policy.
        sha256: Of the file's bytes.
        checks: What measures.
        plugins: Each check of another distribution to that one's name and version.
    """

    policy: Policy
    sha256: str
    checks: Sequence[Check]
    plugins: Mapping[str, str] = field(default_factory=dict)


def load_policy(path: Path) -> PolicyFile:
    """Read and check a policy file.

    Raises:
        PolicyError: naming file and key, if anything in it is wrong.
        CheckError: if a check it names cannot be loaded.
    """
    raw = load_yaml(path, PolicyError)
    named = raw.get("checks") if isinstance(raw, dict) else None
    # What is wrong with the list itself is said below, where the whole policy is parsed.
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    names = list(dict.fromkeys(name.strip() for name in names))
    policy = parse_policy(raw, metrics_of(load_checks(names, built_in_checks(), path.name)), path.name)
    built_in = built_in_checks(policy.operating_points)
    checks = load_checks(policy.checks, built_in, path.name)
    return PolicyFile(policy, sha256_file(path), checks, {name: origin_of(name) for name in policy.checks})


def _batch_size(metric: str) -> int | None:
    found = re.fullmatch(r".*_b([1-9]\d*)", metric)
    return int(found.group(1)) if found else None


def _expect_timed(params: Params, where: str, metric: str) -> None:
    short = {name: least for name, least in FEWEST.items() if getattr(params.time, name) < least}
    if short:
        asked = ", ".join(f"time.{name} {least} or more" for name, least in short.items())
        raise PolicyError(
            f"expected {asked} in params.yaml for a rule on {metric}",
            where=where,
            hint="with fewer no claim on time can be made, and the gate would stay closed",
        )


def expect_measured(policy: Policy, params: Params, file: str = "policy.yaml") -> None:
    """Refuse a policy that asks for what `params.yaml` says nobody will measure.

    Args:
        policy: The policy.
        params: The parameters of the same project.
        file: Name of the policy file, for messages.

    Raises:
        PolicyError: if a rule names a batch size that is not timed, or an attribute that is not prepared, or
            one on time has fewer sessions, rounds or calls than it needs.
    """
    attributes = {*params.prepare.slices, LABEL, ATTACK, str(OVERALL)}
    for index, rule in enumerate(policy.rules):
        size = _batch_size(rule.metric)
        if size is not None and size not in params.time.batch_sizes:
            raise PolicyError(
                f"expected a batch size among {list(params.time.batch_sizes)}, got {size} in {rule.metric!r}",
                where=f"{file} rules[{index}].metric",
                hint="batch sizes are in params.yaml time.batch_sizes",
            )
        if rule.method in (Method.HODGES_LEHMANN, Method.ORDER_STATISTIC):
            _expect_timed(params, f"{file} rules[{index}]", rule.metric)
        named = [part for selector in rule.slices for part in selector.split("=")[0].split("*")]
        strangers = sorted(set(named) - attributes)
        if strangers:
            raise PolicyError(
                f"expected slices of {sorted(attributes)}, got {strangers}",
                where=f"{file} rules[{index}].slices",
                hint="slice columns are named in params.yaml prepare.slices",
            )
