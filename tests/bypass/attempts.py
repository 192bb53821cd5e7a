# SPDX-License-Identifier: Apache-2.0
"""What an attempt is, and when it has failed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.bypass.world import World
from tests.registry_server import Reply

__all__ = ["RETRIED", "Attempt", "Outcome", "as_reply", "attempt"]

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""Answers that MLflow's client tries again, for minutes."""


@dataclass(frozen=True)
class Attempt:
    """One way to try.

    Attributes:
        name: What is tried.
        through: Interface.
        act: Does it; returns the answer to the step that would have done it.
        entry: Whether the registry sees it, so that its ledger has to tell of it.
        harmless: Why an answer that is no refusal is right; empty if only a refusal is.
        quick: One of those that are run on PostgreSQL too.
        unprivileged: Whether it is stopped by the modes of folders, which do not stop a server that is root.
    """

    name: str
    through: str
    act: Callable[[World], Reply]
    entry: bool = True
    harmless: str = ""
    quick: bool = False
    unprivileged: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes:
        attempt: Which.
        status: Of HTTP.
        reason: In the answer.
        number: Of the ledger's entry about the refusal, or None.
        problems: What should not be; empty if it failed as it should.
    """

    attempt: Attempt
    status: int
    reason: str
    number: int | None
    problems: tuple[str, ...]


def as_reply(call: Callable[[], Any]) -> Reply:
    """Do something with MLflow's own client, and return what the server answered it."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # stages are deprecated, and still there
            value = call()
    except HTTPError as error:
        return Reply(error.response.status_code, error.response.content, 0.0)
    except MlflowException as error:
        status = int(error.get_http_status_code())
        return Reply(status, json.dumps({"message": str(error.message)}).encode(), 0.0)
    return Reply(200, repr(value).encode(), 0.0)


def attempt(this: Attempt, world: World) -> Outcome:
    """Try it, and look at everything it could have changed."""
    before, number, allowed = world.state(), world.entries(), dict(world.expected)
    reply = this.act(world)
    after = world.state()
    problems = []
    for what, value in after.items():
        wanted = before[what]
        if what == "aliases":
            wanted = wanted | {key: held for key, held in world.expected.items() if key not in allowed}
        if value != wanted:
            problems.append(f"{what} changed: {wanted} became {value}"[:600])
    refused = 400 <= reply.status < 500 or reply.status == 501 or this.unprivileged
    if not refused and not this.harmless:
        problems.append(f"expected a refusal, got HTTP {reply.status} {reply.reason[:300]}")
    # What the system stops is no refusal of ours, and MLflow knows no better answer to it.
    if reply.status in RETRIED and not this.unprivileged:
        problems.append(f"HTTP {reply.status} is tried again by MLflow's client: {reply.reason[:300]}")
    if str(world.server.artifacts) in reply.reason and "LeanGate" in reply.reason:
        problems.append(f"the answer tells where the server keeps its files: {reply.reason[:300]}")
    entries = world.refusals(number)
    if this.entry and not entries:
        problems.append("the ledger tells nothing of it")
    return Outcome(this, reply.status, reply.reason, entries[-1][0] if entries else None, tuple(problems))
