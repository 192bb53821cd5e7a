# SPDX-License-Identifier: Apache-2.0
"""`leangate run`: `dvc repro` with a table at the end and exit codes that mean something."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from checks.canonical import read_json, sha256_file
from checks.errors import DataError, EvidenceError, InputError, LeanGateError, ParamsError, PolicyError
from pipeline.attestation.keys import find_signer
from pipeline.card.contents import ATTESTATIONS
from pipeline.failures import FAILURE_FILE
from pipeline.fields import read_fields
from pipeline.files import write_text
from pipeline.governance import load_governance
from pipeline.layout import Layout
from pipeline.params import Params, load_params
from pipeline.policy_file import PolicyFile, expect_measured, load_policy
from pipeline.report import render_table
from pipeline.stages import die_with_parent
from pipeline.waiver import parse_waiver, today
from pipeline.waiver_file import WAIVERS

__all__ = ["describe_outcome", "reproduce"]

_AFTER_SELECT = ("enforce", "bundle", "register")

_CODES = {"passed": 0, "waived": 0, "blocked": 1, "inconclusive": 3}


@contextmanager
def _only_one_run(root: Path) -> Iterator[None]:
    """Hold a lock of the kernel's: DVC's own names a process id, which another container may share."""
    folder = root / ".dvc" / "tmp"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "leangate.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                "expected to be the only run in this folder, got another one in progress",
                where=str(root.resolve()),
                hint="wait until it ends",
            ) from error
        yield


def _check_folder(root: Path) -> None:
    for name, what in (("dvc.yaml", "the stages"), (".dvc", "a DVC repository")):
        if not (root / name).exists():
            raise InputError(
                f"expected {what}, got no {name}",
                where=str(root.resolve()),
                hint="run the command in the folder that holds dvc.yaml",
            )


class _Ended(NamedTuple):
    """How `dvc repro` ended: exit code, name and message of the stage that failed; 0 and nothing if none."""

    code: int = 0
    stage: str = ""
    message: str = ""


def _run_dvc(root: Path, targets: Sequence[str], *, force: bool, alone: bool = False) -> _Ended:
    """Run `dvc repro`, and return how it ended."""
    flags = [*(["--force"] if force else []), *(["--single-item"] if alone else [])]
    command = [sys.executable, "-m", "dvc", "repro", *flags, *targets]
    with tempfile.TemporaryDirectory() as folder:
        failure = Path(folder) / "failure.json"
        # The stages say `python`: it must be the interpreter that runs this.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        environment = os.environ | {"PATH": path, FAILURE_FILE: str(failure), "DVC_NO_ANALYTICS": "1"}
        # Were it left alive by a killed run, it would hold DVC's lock against the next one.
        code = subprocess.run(
            command, cwd=root, env=environment, check=False, preexec_fn=die_with_parent
        ).returncode
        if code == 0:
            return _Ended()
        if failure.exists():
            report = read_json(failure)
            return _Ended(int(report["exit_code"]), str(report["stage"]), str(report["message"]))
    return _Ended(LeanGateError.exit_code)


def _registration_of_this_bundle(layout: Layout) -> Mapping[str, str] | None:
    """The registration, unless it is an older one: that file outlives its bundle."""
    manifest = layout.bundle / "bundle.json"
    if not (layout.verdict.exists() and layout.registration.exists() and manifest.exists()):
        return None
    registration = read_fields(layout.registration, "leangate/registration/1")
    verdict = read_fields(layout.verdict, "leangate/verdict/1")
    same_bundle = registration.text("bundle_sha256") == sha256_file(manifest)
    same_file = registration.text("onnx_sha256") == verdict.maybe_text("onnx_sha256")
    told = {key: registration.text(key) for key in ("model", "alias", "version")}
    return told if same_bundle and same_file else None


def describe_outcome(root: Path) -> str:
    """Return the table of candidates and where everything lies.

    Raises:
        InputError: if there was no run yet.
        EvidenceError: if a file of the run is unusable.
    """
    layout = Layout(root)
    if not layout.selection.exists():
        raise InputError(
            "expected what a run makes, got none",
            where=str(layout.selection),
            hint="run `leangate run` first, in the folder that holds dvc.yaml",
        )
    lines = [render_table(layout, today()), "", f"report    {layout.report / 'report.html'}"]
    registration = _registration_of_this_bundle(layout)
    if registration is not None:
        lines += [
            f"card      {layout.bundle / 'MODEL_CARD.md'}",
            "registry  models:/{model}@{alias} (version {version})".format(**registration),
        ]
    else:
        lines.append("registry  nothing was registered")
    return "\n".join(lines)


def _check_policy_on_data(root: Path, layout: Layout, params: Params, file: PolicyFile) -> _Ended:
    """Refuse a hopeless policy before anything is trained; return as `_run_dvc` if the data had to be made.

    Data that lie here may be older than params.yaml or their source: before anything is refused because of
    them, they are made again.
    """
    if not layout.data.exists():
        return _Ended()
    from pipeline.policy_lint import expect_possible

    try:
        expect_possible(layout, params, file)
    except (PolicyError, DataError, EvidenceError):
        ended = _run_dvc(root, ["prepare"], force=False)
        if ended.code:
            return ended
        expect_possible(layout, params, file)
    return _Ended()


def _make_waivers_file(root: Path) -> None:
    """Make an empty list of waivers where there is none: DVC knows no dependency that may be absent."""
    if not (root / WAIVERS).exists() and WAIVERS in (root / "dvc.yaml").read_text(encoding="utf-8"):
        write_text(root / WAIVERS, "")


def _signs_anew(layout: Layout) -> bool:
    """Whether a key is set here that did not sign the bundle that lies here: no file of DVC's tells.

    Raises:
        InputError: if what is set is no key.
    """
    signer = find_signer(os.environ)
    if signer is None or not layout.bundle.exists():
        return False
    try:
        text = (layout.bundle / ATTESTATIONS).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return True
    return signer.public_key.keyid not in text


def _has_ended(layout: Layout) -> bool:
    """Whether the selection names a waiver whose last day is over: for DVC it is as good as ever."""
    if not layout.selection.exists():
        return False
    try:
        rows = read_fields(layout.selection, "leangate/selection/1").entries("finalists")
        waived = [
            parse_waiver(entry) for row in rows if "waived" in row.value for entry in row.entries("waived")
        ]
    except EvidenceError:  # of another version, or broken: DVC makes it anew
        return False
    return any(waiver.until < today() for waiver in waived)


def _expect_files(params: Params, root: Path) -> None:
    """Refuse paths that do not exist; DVC would, without saying which key they come from."""
    for key, value in (
        ("prepare.source", params.prepare.source.partition(".py:")),
        ("prepare.input", (params.prepare.input, "", "")),
        ("model.factory", params.model.factory.partition(".py:")),
        ("model.code", (params.model.code, "", "")),
        ("model.weights", (params.model.weights or "", "", "")),
    ):
        name = value[0] + (".py" if value[1] else "")
        if name and not (root / name).exists():
            raise ParamsError(
                f"expected a file or folder that exists, got {name!r}", where=f"params.yaml {key}"
            )


def _code_of_selection(layout: Layout) -> int:
    return _CODES.get(read_json(layout.selection).get("outcome"), LeanGateError.exit_code)


def reproduce(root: Path, targets: Sequence[str], *, force: bool) -> int:
    """Reproduce the pipeline in `root` and print how it ended.

    Args:
        root: Folder of `dvc.yaml`.
        targets: Stages to reproduce; none means all.
        force: Run stages even if nothing changed.

    Returns:
        0 passed, 1 blocked, 2 wrong input, 3 inconclusive, 4 could not judge. With targets that come before
        `select`, 0 says that they are done and nothing was judged.

    Raises:
        InputError: if the folder, `params.yaml`, `policy.yaml` or `governance.yaml` is wrong, or no candidate
            can pass the policy on the prepared data; nothing is trained then.
    """
    _check_folder(root)
    layout = Layout(root)
    params, file = load_params(layout.params), load_policy(layout.policy)
    load_governance(layout.governance)
    expect_measured(file.policy, params, layout.policy.name)
    _expect_files(params, root)
    find_signer(os.environ)  # a wrong key is told now, and not after everything was trained
    judged = not targets or bool({"select", *_AFTER_SELECT} & set(targets))
    with _only_one_run(root):
        _make_waivers_file(root)
        ended = _check_policy_on_data(root, layout, params, file)
        if not ended.code and judged and _has_ended(layout):
            ended = _run_dvc(root, ["select"], force=True, alone=True)
        if not ended.code:
            ended = _run_dvc(root, targets, force=force)
        if judged and (not ended.code or ended.stage == "register") and _signs_anew(layout):
            # DVC would bring the unsigned bundle back: a key is no file that it could see.
            ended = _run_dvc(root, ["bundle"], force=True, alone=True)
            if not ended.code:
                ended = _run_dvc(root, targets, force=force)
    # A stage that failed before `enforce` leaves the selection of an earlier run behind.
    if judged and layout.selection.exists() and (ended.code == 0 or ended.stage in _AFTER_SELECT):
        print(describe_outcome(root))
        if ended.message:
            print(f"\n{ended.stage} failed: {ended.message}")
        return ended.code or _code_of_selection(layout)
    return ended.code
