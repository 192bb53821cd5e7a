# SPDX-License-Identifier: Apache-2.0
"""The good pipeline of one seed, built once a session."""

from __future__ import annotations

import pytest

from tests.planted.workshop import Workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The good pipeline at seed 0."""
    return Workshop(tmp_path_factory.mktemp("planted") / "seed-0", 0)
