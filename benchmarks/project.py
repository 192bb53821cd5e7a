# SPDX-License-Identifier: Apache-2.0
"""Copies of this repository to measure in, and the measuring of whole processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Usage:
    """What one finished process used.

    Attributes:
        code: Exit code.
        wall: Seconds by the clock.
        cpu: Seconds of processor time, its children's included.
        peak_bytes: Largest resident memory of the process or of any one child.
        output: What it printed.
    """

    code: int
    wall: float
    cpu: float
    peak_bytes: int
    output: str


def copy_repository(target: Path) -> None:
    """Copy what git knows, and what it would add, into a new repository at `target`."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in listed.split("\0"):
        if name and name != "dvc.lock" and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "start"]):
        subprocess.run(["git", *arguments], cwd=target, check=True)  # noqa: S607


def run(command: Sequence[str], folder: Path, **variables: str) -> Usage:
    """Run a Python command in `folder` and return what it used."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"} | variables
    output = folder / ".benchmark-output"
    start = time.perf_counter()
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=environment,
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - start
    text = output.read_text()
    output.unlink()
    return Usage(process.returncode, wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, text)
