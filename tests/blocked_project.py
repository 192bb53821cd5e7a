# SPDX-License-Identifier: Apache-2.0
"""A small but complete project whose only finalist is blocked by two findings that may be waived."""

from __future__ import annotations

import json
from pathlib import Path

from checks.canonical import dumps
from pipeline.gate import judge_slot
from pipeline.layout import Layout
from pipeline.policy_file import load_policy
from tests.bundle_project import build_project, judge_project

POLICY = """
version: 1
name: strict
alpha: 0.05
alpha_fail: 0.05
waivers:
  approvers: ["{approver}"]
  max_days: 90
rules:
  - {{id: overall, kind: bounded, metric: accuracy_change, margin: 0.02, reason: why}}
  - {{id: levels, kind: bounded, metric: accuracy_change, margin: 0.5, slices: [slant], reason: why}}
  - {{id: finite, kind: assert, metric: nonfinite_outputs, max: 0, reason: why}}
  - {{id: fewer, kind: assert, metric: macs_ratio, max: 0.4, waivable: true, reason: why}}
  - {{id: into-one, kind: screen, metric: flip_target_concentration, alarm: 0.01, reason: why, blocking: false}}
"""
"""60 examples cannot prove two points: `overall` is INCONCLUSIVE; `fewer` is FAIL, at 0.5."""


def build_blocked(root: Path, approver: str, policy: str = POLICY) -> Layout:
    """Write a project below `root` in which everything up to `gate` has run, and return its layout.

    Args:
        root: Where.
        approver: Id of the key that may waive.
        policy: With `{approver}` where the id belongs.
    """
    layout = build_project(root)
    judge_project(layout, base=policy.format(approver=approver))
    layout.verdict.unlink()
    layout.selection.unlink()
    data = json.loads((layout.data / "data.json").read_text())
    data["slice_origins"]["slant"]["levels"] = ["backward", "upright", "forward"]
    (layout.data / "data.json").write_text(dumps(data))
    second = judge_slot(layout, "second", load_policy(layout.policy)).value
    layout.decision("second").write_text(dumps(second))
    return layout
