# SPDX-License-Identifier: Apache-2.0
"""`policy.yaml` read from disk, with the digest of its bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from checks.canonical import sha256_file
from checks.errors import PolicyError
from checks.policy import Policy, parse_policy
from checks.protocol import Check, built_in_checks, metric_methods
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
    """
    checks = built_in_checks()
    policy = parse_policy(load_yaml(path, PolicyError), metric_methods(checks), path.name)
    return PolicyFile(policy, sha256_file(path), checks)
