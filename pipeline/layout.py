# SPDX-License-Identifier: Apache-2.0
"""Where each stage's outputs lie; stages meet only through these files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Paths of all outputs below one project root (the folder of `dvc.yaml`)."""

    root: Path = Path()

    @property
    def params(self) -> Path:
        """`params.yaml`."""
        return self.root / "params.yaml"

    @property
    def policy(self) -> Path:
        """`policy.yaml`."""
        return self.root / "policy.yaml"

    @property
    def governance(self) -> Path:
        """`governance.yaml`."""
        return self.root / "governance.yaml"

    @property
    def artifacts(self) -> Path:
        """Folder of everything the stages write."""
        return self.root / "artifacts"

    @property
    def data(self) -> Path:
        """prepare: `examples.npz`, `manifest.parquet`, `data.json`."""
        return self.artifacts / "data"

    @property
    def validation(self) -> Path:
        """validate: `findings.json`, `docs/index.html`."""
        return self.artifacts / "validation"

    @property
    def baseline(self) -> Path:
        """train: `model.onnx`, `weights.safetensors`, `model.json`, `compression.json`."""
        return self.artifacts / "baseline"

    def shrunk(self, variant: str) -> Path:
        """prune: `model.onnx`, `weights.safetensors`, `model.json`, `compression.json`."""
        return self.artifacts / "shrunk" / variant

    def candidate(self, name: str) -> Path:
        """quantize: `model.onnx`, `model.json`, `compression.json`; `name` is `<variant>-<precision>`."""
        return self.artifacts / "candidates" / name

    def seconds(self, stage: str, name: str) -> Path:
        """train, prune, quantize: how long each pass took; nothing depends on it."""
        return self.artifacts / "seconds" / f"{stage}-{name}.json"

    @property
    def shortlist(self) -> Path:
        """shortlist: `shortlist.json`, and a folder a slot."""
        return self.artifacts / "shortlist"

    def finalist(self, slot: str) -> Path:
        """shortlist: `finalist.json`, and what describes the candidate if the slot is filled."""
        return self.shortlist / slot

    @property
    def attempts_file(self) -> Path:
        """`attempts.jsonl`: every candidate that a test split was shown; only ever grows."""
        return self.root / "attempts.jsonl"

    @property
    def attempts(self) -> Path:
        """attempt: a record a slot."""
        return self.artifacts / "attempts"

    @property
    def pseudonyms(self) -> Path:
        """Names and salts behind the pseudonyms of examples and units; no output of a stage, never shared."""
        return self.root / "restricted" / "pseudonyms.jsonl"

    def attempt(self, slot: str) -> Path:
        """attempt: the attempt of one finalist, written before anything looks at the test split."""
        return self.attempts / f"{slot}.json"

    def evidence(self, slot: str) -> Path:
        """evaluate: all evidence but the timing."""
        return self.artifacts / "evidence" / slot

    def timing(self, slot: str) -> Path:
        """time: `timing.npz`."""
        return self.artifacts / "timing" / slot

    def decision(self, slot: str) -> Path:
        """gate: the decision on one finalist."""
        return self.artifacts / "decisions" / f"{slot}.json"

    @property
    def selection(self) -> Path:
        """select: which finalist ships, if any."""
        return self.artifacts / "selection.json"

    @property
    def report(self) -> Path:
        """select: `report.html`, `report.md`."""
        return self.artifacts / "report"

    @property
    def verdict(self) -> Path:
        """enforce: exists only after something passed."""
        return self.artifacts / "verdict.json"

    @property
    def bundle(self) -> Path:
        """bundle: the directory that ships."""
        return self.artifacts / "bundle"

    @property
    def registration(self) -> Path:
        """register: name and version in the registry."""
        return self.artifacts / "registration.json"
