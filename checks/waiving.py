# SPDX-License-Identifier: Apache-2.0
"""Who may waive what: section `waivers` of a policy, and the key `waivable` of its rules.

A waiver lets one finding on one artifact through that its rule does not, for some days. Without the section
nothing can be waived; with it bounded rules and screens may be, unless they say `waivable: false`; asserts
only where they say `waivable: true`: most of them ask whether the evidence is fit to be judged at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from checks.errors import PolicyError
from checks.policy_values import known_keys

__all__ = ["Waiving", "parse_waivable", "parse_waiving"]

_KEYS = {"approvers", "max_days"}
_KEY_ID = re.compile(r"[0-9a-f]{64}")
_MOST_APPROVERS = 100
_MOST_DAYS = 366


@dataclass(frozen=True)
class Waiving:
    """Who may waive, and for how long.

    Attributes:
        approvers: Ids of the Ed25519 keys that may sign a waiver, 64 lower-case hexadecimal digits each.
        max_days: Most days from the day a waiver is signed to its last day, 1 to 366.
    """

    approvers: tuple[str, ...]
    max_days: int


def parse_waiving(raw: Mapping[str, Any], file: str) -> Waiving | None:
    """Return section `waivers` of a policy, or None where there is none: nothing can be waived then.

    Args:
        raw: The whole policy.
        file: Name of the file, for messages.

    Raises:
        PolicyError: naming file and key.
    """
    if "waivers" not in raw:
        return None
    section = known_keys(raw["waivers"], _KEYS, "waivers", file)
    approvers, days = section.get("approvers"), section.get("max_days")
    if not isinstance(approvers, list) or not 1 <= len(approvers) <= _MOST_APPROVERS:
        raise PolicyError(
            f"expected a list of 1 to {_MOST_APPROVERS} key ids, got {approvers!r}"[:200],
            where=f"{file} waivers.approvers",
            hint="`leangate keys new FOLDER` makes a key and prints its id",
        )
    for index, key_id in enumerate(approvers):
        if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
            raise PolicyError(
                f"expected the whole id of a key, 64 lower-case hexadecimal digits, got {key_id!r}"[:200],
                where=f"{file} waivers.approvers[{index}]",
                hint="quote it: YAML reads digits alone as a number",
            )
    if len(set(approvers)) != len(approvers):
        raise PolicyError("expected each key id once", where=f"{file} waivers.approvers")
    if type(days) is not int or not 1 <= days <= _MOST_DAYS:
        raise PolicyError(
            f"expected a whole number from 1 to {_MOST_DAYS}, got {days!r}"[:200],
            where=f"{file} waivers.max_days",
        )
    return Waiving(tuple(approvers), days)


def parse_waivable(raw: Mapping[str, Any], kind: str, *, blocking: bool, where: str) -> bool:
    """Return whether findings of a rule may be waived.

    Args:
        raw: The rule.
        kind: Of the rule; `assert` may be waived only where the rule says so.
        blocking: Whether the rule blocks; what does not needs no waiver.
        where: Place of the rule, for messages.

    Raises:
        PolicyError: naming the key.
    """
    value = raw.get("waivable", blocking and kind != "assert")
    if not isinstance(value, bool):
        raise PolicyError(f"expected true or false, got {value!r}", where=f"{where}.waivable")
    if value and not blocking:
        raise PolicyError(
            "expected no waivable: true where blocking is false: it stops nothing", where=f"{where}.waivable"
        )
    return value
