# SPDX-License-Identifier: Apache-2.0
"""No attempt to get an unproven model into production, through any interface of a real server, succeeds."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.bypass.artifact_attempts import ARTIFACTS
from tests.bypass.attempts import Attempt, attempt
from tests.bypass.evidence_attempts import EVIDENCE
from tests.bypass.registry_attempts import REGISTRY
from tests.bypass.world import World, gated_world
from tests.postgres import postgres_cluster

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("mlflow")]

ALL = (*REGISTRY, *EVIDENCE, *ARTIFACTS)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with gated_world(tmp_path_factory.mktemp("gated")) as world:
        yield world


@pytest.fixture(scope="module")
def postgres_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        postgres_cluster() as cluster,
        gated_world(tmp_path_factory.mktemp("postgres"), cluster.database("registry")) as world,
    ):
        yield world


def name(this: Attempt) -> str:
    return f"{this.name} [{this.through}]"


@pytest.mark.parametrize("this", ALL, ids=name)
def test_it_fails_and_is_told_why(world: World, this: Attempt) -> None:
    if this.unprivileged and os.geteuid() == 0:
        pytest.skip("the tests run as root, whom modes of folders do not stop")
    assert attempt(this, world).problems == ()


@pytest.mark.parametrize("this", [this for this in ALL if this.quick], ids=name)
def test_it_fails_on_postgresql_too(postgres_world: World, this: Attempt) -> None:
    assert attempt(this, postgres_world).problems == ()
