# SPDX-License-Identifier: Apache-2.0
"""Every planted defect is stopped by the rule that is there for it; every honest counterpart is let through."""

from __future__ import annotations

import pytest

from tests.planted.defects import filmed
from tests.planted.rows import ROWS, Row
from tests.planted.workshop import Workshop

pytestmark = [pytest.mark.integration, pytest.mark.planted]

by_row = pytest.mark.parametrize("row", ROWS, ids=[f"{row.number} {row.defect}" for row in ROWS])


def test_the_good_pipeline_is_promoted(workshop: Workshop):
    judged = workshop.good.judge()
    assert judged.promoted, judged.wanting
    assert judged.naive
    assert not [row.number for row in ROWS if row.is_caught(judged)]


@by_row
def test_a_defect_is_stopped_by_its_rule(row: Row, workshop: Workshop):
    judged = row.plant(workshop).judge()
    assert row.is_caught(judged), judged.wanting


@by_row
def test_its_clean_twin_is_promoted(row: Row, workshop: Workshop):
    judged = row.keep(workshop).judge()
    assert judged.promoted, judged.wanting


def test_the_declared_unit_is_what_stops_ten_frames_a_subject(workshop: Workshop):
    """The same frames without unit ids look like 900 examples, and that is what a gate would count."""

    def judged_on(*, declared: bool) -> int:
        judged = filmed(workshop, 90, 10, declared=declared).judge()
        [finding] = [found for found in judged.findings if found.rule.id == "accuracy-overall"]
        assert (finding.verdict == "PASS") is not declared
        return finding.measurement.n

    assert judged_on(declared=True) == 90
    assert judged_on(declared=False) == 900


def test_an_identical_copy_is_promoted_with_nothing_lost(workshop: Workshop):
    judged = workshop.with_file(workshop.good.layout.baseline / "model.onnx").judge()
    assert judged.promoted, judged.wanting
    changes = [f for f in judged.findings if f.rule.metric == "accuracy_change"]
    assert {(f.measurement.statistics["losses"], f.measurement.statistics["gains"]) for f in changes} == {
        (0, 0)
    }
