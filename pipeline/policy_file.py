# SPDX-License-Identifier: Apache-2.0
"""`policy.yaml` read from disk, with the digest of its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from checks.canonical import sha256_file
from checks.errors import PolicyError
from checks.plugins import load_checks
from checks.policy import Policy, parse_policy
from checks.protocol import Check, built_in_checks, metrics_of
from pipeline.params import load_yaml

__all__ = ["PolicyFile", "load_policy"]


@dataclass(frozen=True)
class PolicyFile:
    """A policy, the SHA-256 of the file it came from, and the checks it refers to."""

    policy: Policy
    sha256: str
    checks: Sequence[Check]


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
    return PolicyFile(policy, sha256_file(path), load_checks(policy.checks, built_in, path.name))
