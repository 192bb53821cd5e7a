# SPDX-License-Identifier: Apache-2.0
"""A good pipeline on the bundled digits, and copies of it in which one thing is wrong.

Every stage is the project's own, run in this process. A copy is a project folder that shares data and
baseline with the good one; its ONNX file, or its evidence, is changed, the probes that the change concerns
run again, and `gate` judges what lies there. Attacks are few: no row of this suite is about robustness.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx

from checks.canonical import sha256_file
from checks.decision import Outcome
from checks.errors import PolicyError
from checks.evidence import Evidence, Subject, read_evidence
from checks.finding import Finding, Verdict
from pipeline.data.dataset import data_digest
from pipeline.data.test_examples import read_test_digest
from pipeline.files import write_json
from pipeline.gate import judge_slot
from pipeline.layout import Layout
from pipeline.params import Params, load_params
from pipeline.policy_file import PolicyFile, load_policy
from pipeline.probes.tables import write_table
from tests.evidence_files import write_attempt

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SLOT = "first"
NAIVE_DROP = 0.02
"""What the control arm allows: accuracy, as a point estimate, may fall by so much."""

REFUSED = "policy"
"""Stands for a rule where the policy could not be applied at all."""

_MOST_TIMINGS = 3

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Judged:
    """What became of one candidate.

    Attributes:
        promoted: Whether the gate let it through.
        wanting: Rule to the findings that are neither PASS nor NO-FINDING, in words.
        naive: Whether "accuracy falls by at most two points" would have let it through.
        change: The change of accuracy, row by row, as that rule sees it.
        findings: All of them; empty where the policy could not be applied at all.
    """

    promoted: bool
    wanting: Mapping[str, tuple[str, ...]]
    naive: bool
    change: float
    findings: tuple[Finding, ...] = ()

    def says(self, rule: str, *, subject: str = "", verdict: str = "") -> bool:
        """Whether `rule` wants something, of that subject and with that verdict where they are named."""
        return any(
            word.startswith(verdict) and (not subject or f" {subject}: " in word)
            for word in self.wanting.get(rule, ())
        )


def planted_params(seed: int) -> Params:
    """Return the repository's parameters with a small effort and one finalist."""
    value = load_params(ROOT / "params.yaml").model_dump(by_alias=True)
    value["seed"] = seed
    value["prepare"] |= {
        "source": "source.py:digits",
        "input": "source.py",
        "slices": ("light", "glyph"),
    }
    recover = value["prune"]["recipes"]["half"][1]["recover"]
    value["prune"] = {
        "variants": ("dense", "pruned"),
        "recipes": {
            "dense": (),
            # Three tenths of the multiply-accumulates go. Recovered towards the baseline's own answers: from
            # labels alone, more decisions would change than the accuracy says.
            "pruned": (
                {"channels": {"macs_reduction": 1 / 0.7}},
                {"recover": recover | {"epochs": 20, "label_smoothing": 0.0, "distill": {"soft": 1.0}}},
            ),
        },
    }
    value["quantize"]["precisions"] = ("int8",)
    value["shortlist"]["slots"] = (SLOT,)
    value["evaluate"]["attack"] |= {"examples": 32, "pgd_steps": 2, "pgd_restarts": 1, "square_queries": 2}
    # 500 calls a session, so that the 99th percentile of each has a bound.
    value["time"] |= {"batch_sizes": (16,), "sessions": 8, "rounds": 10, "calls": 50}
    return Params.model_validate(value)


def read_arrays(path: Path) -> tuple[dict[str, Any], Arrays]:
    """Read a table whatever its schema."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return json.loads(str(arrays.pop("header"))), arrays


class Project:
    """One project folder: a baseline, one finalist, evidence and timing of both."""

    def __init__(self, root: Path, params: Params, policy: PolicyFile) -> None:
        self.layout, self.params, self.policy = Layout(root), params, policy

    @property
    def candidate(self) -> onnx.ModelProto:
        """The finalist's file."""
        return onnx.load(self.layout.finalist(SLOT) / "model.onnx")

    @property
    def baseline(self) -> onnx.ModelProto:
        """The baseline's file."""
        return onnx.load(self.layout.baseline / "model.onnx")

    def table(self, name: str) -> Path:
        """Return where a table of evidence lies, `candidate.npz` for example."""
        folder = self.layout.timing(SLOT) if name == "timing.npz" else self.layout.evidence(SLOT)
        return folder / name

    def evidence(self) -> Evidence:
        """Read the evidence that lies in this folder."""
        header, _ = read_arrays(self.table("attacks.npz"))
        names = [field.name for field in dataclasses.fields(Subject)]
        subject = Subject(**{name: header[name] for name in names})
        return read_evidence(self.layout.evidence(SLOT), self.layout.timing(SLOT), subject)

    def fill(self, file: Path, name: str) -> None:
        """Make an ONNX file the finalist."""
        from pipeline.models.cost import measure_cost
        from pipeline.models.record import read_record

        folder = self.layout.finalist(SLOT)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copyfile(file, folder / "model.onnx")
        digest, cost = sha256_file(file), measure_cost(file)
        # Not the pipeline's own record: that refuses a file whose scores on the validation split are NaN.
        record = read_record(self.layout.baseline) | {
            "name": name,
            "sha256": digest,
            "bytes": cost.bytes,
            "gzip_bytes": cost.gzip_bytes,
            "macs": cost.macs,
            "parameters": cost.parameters,
        }
        write_json(folder / "model.json", record)
        entry = {"schema": "leangate/finalist/1", "slot": SLOT, "candidate": name, "sha256": digest}
        baseline = sha256_file(self.layout.baseline / "model.onnx")
        write_json(folder / "finalist.json", entry | {"baseline_sha256": baseline})
        # By hand, because `shortlist` would leave out most of these files for their validation accuracy.
        write_json(
            self.layout.shortlist / "shortlist.json",
            {"schema": "leangate/shortlist/1", "slots": {SLOT: name}},
        )

    def replace_baseline(self, model: onnx.ModelProto) -> None:
        """Put another file in the place of the baseline, which this folder shares with the good project."""
        from pipeline.models.cost import measure_cost
        from pipeline.models.onnx_file import save_onnx
        from pipeline.models.record import read_record

        folder = self.layout.baseline
        record = read_record(folder)
        shared = folder.resolve()
        folder.unlink()
        shutil.copytree(shared, folder)
        save_onnx(model, folder / "model.onnx")
        cost = dataclasses.asdict(measure_cost(folder / "model.onnx"))
        changed = {key: cost[key] for key in ("bytes", "gzip_bytes", "macs", "parameters")}
        write_json(folder / "model.json", record | changed | {"sha256": sha256_file(folder / "model.onnx")})

    def evaluate(self, *, batch_size: int | None = None) -> None:
        """Run the probes of `evaluate`."""
        import pipeline.evaluate

        params = self.params
        if batch_size is not None:
            evaluate = params.evaluate.model_copy(update={"batch_size": batch_size})
            params = params.model_copy(update={"evaluate": evaluate})
        candidate = sha256_file(self.layout.finalist(SLOT) / "model.onnx")
        write_attempt(self.layout, SLOT, read_test_digest(self.layout.data), candidate)
        pipeline.evaluate.run(self.layout, params, slot=SLOT)

    def time(self, *, quiet: bool = False) -> None:
        """Run the probe of `time`.

        Args:
            quiet: Run it again while the host is too busy to time anything, as the finding on it advises.
        """
        import pipeline.time

        for _ in range(_MOST_TIMINGS if quiet else 1):
            pipeline.time.run(self.layout, self.params, slot=SLOT)
            _, arrays = read_arrays(self.table("timing.npz"))
            control = np.median(np.log(arrays["control_ms"] / arrays["baseline_ms"]), axis=-1)
            if abs(float(np.median(control))) < 0.03 and arrays["candidate_calls_ms"].max() < 20:
                return

    def edit(self, name: str, change: Callable[[dict[str, Any], Arrays], None]) -> None:
        """Change header and arrays of a table in place; `change` gets both."""
        header, arrays = read_arrays(self.table(name))
        change(header, arrays)
        write_table(self.table(name), header, arrays)

    def keep_slices(self) -> None:
        """Write the slices of `examples.npz` into the data as well, as if the source had given them so."""
        import pandas as pd

        header, examples = read_arrays(self.table("examples.npz"))
        folder = self.layout.data
        if folder.is_symlink():
            shared = folder.resolve()
            folder.unlink()
            shutil.copytree(shared, folder)
        manifest = pd.read_parquet(folder / "manifest.parquet").set_index("id")
        facts = json.loads((folder / "data.json").read_text())
        for name in facts["slices"]:
            if name in header["levels"]:
                manifest.loc[examples["ids"].tolist(), name] = examples[f"slice:{name}"].tolist()
            else:
                manifest = manifest.drop(columns=name)
        manifest.reset_index().to_parquet(folder / "manifest.parquet", index=False)
        write_json(folder / "data.json", facts | {"slices": sorted(header["levels"])})
        digest = data_digest(folder)
        for name in ("examples", "baseline", "candidate", "contract", "attacks"):
            self.edit(f"{name}.npz", lambda header, _: header.update(data_sha256=digest))
        groups = self.table("groups.json")
        write_json(groups, json.loads(groups.read_text()) | {"data_sha256": digest})

    def tabulate_groups(self) -> None:
        """Write the group table anew, after scores or slices were changed."""
        from pipeline.probes.groups import tabulate_groups
        from pipeline.probes.session import decide

        header, examples = read_arrays(self.table("examples.npz"))
        order = {name: position for position, name in enumerate(examples["ids"].tolist())}
        decided = {}
        for model in ("baseline", "candidate"):
            _, scores = read_arrays(self.table(f"{model}.npz"))
            rows = np.argsort([order[name] for name in scores["ids"].tolist()])
            decided[model] = decide(scores["scores"][rows])
        columns = {
            name.removeprefix("slice:"): column
            for name, column in examples.items()
            if name.startswith("slice:")
        }
        path = self.table("groups.json")
        attributes = tabulate_groups(
            examples["labels"],
            decided["baseline"],
            decided["candidate"],
            columns,
            tuple(header["classes"]),
        )
        write_json(path, json.loads(path.read_text()) | {"attributes": attributes})

    def _change_of_accuracy(self) -> float:
        """What somebody sees who compares two accuracies: rows as they come, whatever is in them."""
        _, examples = read_arrays(self.table("examples.npz"))
        accuracy = []
        for model in ("baseline", "candidate"):
            _, scores = read_arrays(self.table(f"{model}.npz"))
            accuracy.append(float(np.mean(scores["scores"].argmax(axis=1) == examples["labels"])))
        return accuracy[1] - accuracy[0]

    def judge(self) -> Judged:
        """Judge the evidence that lies in this folder."""
        change = self._change_of_accuracy()
        naive = change >= -NAIVE_DROP
        try:
            decision = judge_slot(self.layout, SLOT, self.policy).decision
        except PolicyError as error:
            # Nothing is decided under a policy that the data cannot answer: exit code 2.
            return Judged(False, {REFUSED: (f"ERROR : {error}",)}, naive, change)
        assert decision is not None
        wanting: dict[str, tuple[str, ...]] = {}
        for finding in decision.findings:
            if finding.blocking and finding.verdict not in (Verdict.PASS, Verdict.NO_FINDING):
                words = f"{finding.verdict} {finding.subject}: {finding.message}"
                wanting[finding.rule.id] = (*wanting.get(finding.rule.id, ()), words)
        promoted = decision.outcome is Outcome.PASSED
        assert promoted == (not wanting)
        return Judged(promoted, wanting, naive, change, decision.findings)


class Workshop:
    """The good pipeline of one seed, and what is made of it.

    Args:
        folder: An empty folder.
        seed: Of splits, training and everything else.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.params = planted_params(seed)
        self.policy = load_policy(HERE / "policy.yaml")
        self._count = 0
        self.good = Project(folder / "good", self.params, self.policy)
        self._build()

    def _build(self) -> None:
        import pipeline.prepare
        import pipeline.prune
        import pipeline.quantize
        import pipeline.train

        layout = self.good.layout
        layout.root.mkdir(parents=True)
        shutil.copyfile(HERE / "source.py", layout.root / "source.py")
        shutil.copytree(ROOT / "examples" / "digits", layout.root / "examples" / "digits")
        pipeline.prepare.run(layout, self.params)
        pipeline.train.run(layout, self.params)
        pipeline.prune.run(layout, self.params, variant="dense")
        pipeline.quantize.run(layout, self.params, variant="dense", precision="int8")
        self.good.fill(layout.candidate("dense-int8") / "model.onnx", "dense-int8")
        self.good.evaluate()
        self.good.time(quiet=True)

    # --- files that more than one row needs ---

    @cached_property
    def pruned(self) -> Path:
        """An int8 file of the baseline with three tenths of its work pruned away, recovered."""
        import pipeline.prune
        import pipeline.quantize

        layout = self.good.layout
        pipeline.prune.run(layout, self.params, variant="pruned")
        pipeline.quantize.run(layout, self.params, variant="pruned", precision="int8")
        return layout.candidate("pruned-int8") / "model.onnx"

    @cached_property
    def retrained(self) -> Path:
        """An int8 file of another training run: the same data, recipe and accuracy, another seed."""
        import pipeline.prune
        import pipeline.quantize
        import pipeline.train

        root = self.folder / "retrained"
        layout = Layout(root)
        layout.artifacts.mkdir(parents=True)
        shutil.copytree(self.good.layout.root / "examples", root / "examples")
        layout.data.symlink_to(self.good.layout.data, target_is_directory=True)
        params = self.params.model_copy(update={"seed": self.seed + 1000})
        pipeline.train.run(layout, params)
        pipeline.prune.run(layout, params, variant="dense")
        pipeline.quantize.run(layout, params, variant="dense", precision="int8")
        return layout.candidate("dense-int8") / "model.onnx"

    @cached_property
    def test_split(self) -> Any:
        """The examples that everything is judged on."""
        return self.dataset.split("test")

    @cached_property
    def dataset(self) -> Any:
        """All prepared examples."""
        from pipeline.data.dataset import read_dataset

        return read_dataset(self.good.layout.data)

    # --- copies ---

    def _fresh(self, source: str = "") -> Project:
        self._count += 1
        root = self.folder / f"copy-{self._count}"
        project = Project(root, self.params, self.policy)
        layout, good = project.layout, self.good.layout
        layout.artifacts.mkdir(parents=True)
        if not source:
            layout.data.symlink_to(good.data, target_is_directory=True)
        layout.baseline.symlink_to(good.baseline, target_is_directory=True)
        return project

    def copy(self) -> Project:
        """Return a copy of the good project, evidence included."""
        project, good = self._fresh(), self.good.layout
        shutil.copytree(good.shortlist, project.layout.shortlist)
        for folder in ("attempts", "evidence", "timing"):
            shutil.copytree(good.artifacts / folder, project.layout.artifacts / folder)
        return project

    def with_file(
        self,
        model: onnx.ModelProto | Path,
        *,
        batch_size: int | None = None,
        timed: bool = False,
        operators: Mapping[str, Any] | None = None,
        baseline: onnx.ModelProto | None = None,
    ) -> Project:
        """Return a copy with another candidate, its probes run again.

        Args:
            model: The candidate.
            batch_size: Of `evaluate`.
            timed: Whether to time the file, too. Else the times of the good candidate stand in for its own:
                the row is not about time.
            operators: Differentiable operators that attacks need for this file and the project lacks.
            baseline: What it is compared with, if not the good baseline.
        """
        from pipeline.models.onnx_file import save_onnx
        from pipeline.probes.operators import OPERATORS

        project = self._fresh()
        if isinstance(model, onnx.ModelProto):
            path = project.layout.root / "planted.onnx"
            save_onnx(model, path)
        else:
            path = model
        if baseline is not None:
            project.replace_baseline(baseline)
        project.fill(path, "planted")
        with patch.dict(OPERATORS, operators) if operators else contextlib.nullcontext():  # type: ignore[arg-type]
            project.evaluate(batch_size=batch_size)
        if timed:
            project.time()
        else:
            project.layout.timing(SLOT).mkdir(parents=True)
            shutil.copyfile(self.good.table("timing.npz"), project.table("timing.npz"))
            digest = sha256_file(project.layout.finalist(SLOT) / "model.onnx")
            other = sha256_file(project.layout.baseline / "model.onnx")
            digests = {"candidate_sha256": digest, "baseline_sha256": other}
            project.edit("timing.npz", lambda header, _: header.update(digests))
        return project

    def with_frames(
        self, pixels: np.ndarray, labels: np.ndarray, subjects: np.ndarray, *, declared: bool
    ) -> Project:
        """Return a copy whose test split is made of frames of subjects.

        Args:
            pixels: `(N, C, H, W)` uint8.
            labels: `(N,)` names of classes.
            subjects: `(N,)` the subject of each frame.
            declared: Whether the source says which frames are of one subject.
        """
        import pipeline.prepare

        project = self._fresh("frames")
        root = project.layout.root
        shutil.copyfile(HERE / "source.py", root / "source.py")
        others = self.dataset.columns["split"] != "test"
        ids = np.array([f"frame-{index:04d}" for index in range(len(pixels))])
        kept = self.dataset.columns
        np.savez(
            root / "frames.npz",
            ids=np.concatenate([kept["id"][others], ids]),
            units=np.concatenate([kept["unit"][others], subjects if declared else ids]),
            labels=np.concatenate([kept["label"][others], labels]),
            splits=np.concatenate([kept["split"][others], np.full(len(ids), "test")]),
            pixels=np.concatenate([self.dataset.pixels[others], pixels]),
        )
        prepare = self.params.prepare.model_copy(update={"source": "source.py:frames", "splits": None})
        pipeline.prepare.run(project.layout, self.params.model_copy(update={"prepare": prepare}))
        project.fill(self.good.layout.finalist(SLOT) / "model.onnx", "dense-int8")
        project.evaluate()
        # The very same two files, so their times are these.
        shutil.copytree(self.good.layout.timing(SLOT), project.layout.timing(SLOT))
        return project
