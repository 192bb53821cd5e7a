# SPDX-License-Identifier: Apache-2.0
"""What happens around the gate: data that are validated before it, bundles that are verified behind it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from checks.canonical import dumps, sha256_file
from checks.errors import DataError, LeanGateError
from pipeline.card.contents import with_digest
from pipeline.policy_file import load_policy
from pipeline.verification import verify_bundle
from tests.planted.workshop import HERE, ROOT, SLOT, Judged, Project, Workshop

VERIFY = "leangate verify"
"""Stands for a rule where a bundle was not verified."""

VALIDATE = "validate"
"""Stands for a rule where the data were refused before anything was learnt from them."""


class Validated(Project):
    """A project whose data are judged, as the stage `validate` does."""

    def judge(self) -> Judged:
        """Validate the data that lie in this folder; whoever only counts promotes what was learnt from them."""
        import pipeline.validate

        try:
            pipeline.validate.run(self.layout, self.params)
        except DataError:
            findings = json.loads((self.layout.validation / "findings.json").read_text())["findings"]
            words = tuple(
                f"{entry['verdict']} {entry['check']}: {entry['came']}"
                for entry in findings
                if entry["verdict"] != "PASS"
            )
            return Judged(False, {VALIDATE: words}, True, 0.0)
        return Judged(True, {}, True, 0.0)


class Shipped:
    """A bundle, judged as whoever receives it does.

    Args:
        folder: The bundle.
        made: What it was made from.
    """

    def __init__(self, folder: Path, made: Judged) -> None:
        self.folder, self.made = folder, made

    def judge(self) -> Judged:
        """Verify the bundle."""
        naive, change = self.made.naive, self.made.change
        try:
            list(verify_bundle(self.folder))
        except LeanGateError as error:
            path = Path(error.where.split(" ")[0])
            name = path.relative_to(self.folder) if path.is_relative_to(self.folder) else path
            return Judged(False, {VERIFY: (f"ERROR {name}: {error.what}",)}, naive, change)
        return Judged(True, {}, naive, change)

    def mend(self) -> None:
        """Give `bundle.json` the digests that the files have now, as somebody would who knows how."""
        path = self.folder / "bundle.json"
        value = json.loads(path.read_text())
        for name in value["files"]:
            file = self.folder / name
            value["files"][name] = {"sha256": sha256_file(file), "bytes": file.stat().st_size}
        verdict = json.loads((self.folder / "records" / "verdict.json").read_text())
        value |= {key: verdict[key] for key in ("policy_sha256", "decision_sha256")}
        path.write_text(dumps(with_digest(value)))

    def edit(self, name: str, change: Callable[[dict[str, object]], None]) -> None:
        """Change a JSON file of the bundle."""
        value = json.loads((self.folder / name).read_text())
        change(value)
        (self.folder / name).write_text(dumps(value))


def timeless_policy() -> str:
    """Return the policy of the suite without its rules on time: a busy host must not keep a bundle back."""
    rules, found, _ = (HERE / "policy.yaml").read_text().partition("  - id: faster")
    assert found
    return rules


def untimed(workshop: Workshop, project: Project) -> Project:
    """Judge a project under `timeless_policy`: what is planted has nothing to do with time."""
    path = workshop.folder / "untimed.yaml"
    path.write_text(timeless_policy())
    project.policy = load_policy(path)
    return project


def ship(workshop: Workshop, *, policy: str = "") -> Shipped:
    """Take the good candidate through the stages behind `evaluate` and `time`, into a bundle.

    Args:
        workshop: The good pipeline.
        policy: Text of the policy; `timeless_policy` by default.
    """
    import pipeline.bundle
    import pipeline.enforce
    import pipeline.gate
    import pipeline.select
    import pipeline.shortlist
    import pipeline.validate

    project, good = workshop.copy(), workshop.good.layout
    layout = project.layout
    prune = workshop.params.prune.model_copy(update={"variants": ("dense",)})
    params = workshop.params.model_copy(update={"prune": prune})
    for path in (layout.params, layout.governance):
        shutil.copyfile(ROOT / path.name, path)
    layout.policy.write_text(policy or timeless_policy())
    layout.candidate("dense-int8").parent.mkdir(parents=True)
    layout.candidate("dense-int8").symlink_to(good.candidate("dense-int8"), target_is_directory=True)
    if not good.validation.exists():
        pipeline.validate.run(workshop.good.layout, workshop.params)
    layout.validation.symlink_to(good.validation, target_is_directory=True)
    shutil.rmtree(layout.shortlist)
    pipeline.shortlist.run(layout, params)
    pipeline.gate.run(layout, params, slot=SLOT)
    for stage in (pipeline.select, pipeline.enforce, pipeline.bundle):
        stage.run(layout, params)
    return Shipped(layout.bundle, project.judge())
