# SPDX-License-Identifier: Apache-2.0
"""Every comparison of the judge is turned around, in a copy, and some test must fail for each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.planted.mutants import JUDGE, Mutant, mutants_of

pytestmark = [pytest.mark.integration, pytest.mark.planted]

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
TESTS = (
    "tests/unit/checks/test_checks_claim.py",
    "tests/unit/checks/test_checks_judge.py",
    "tests/unit/checks/test_checks_crossing.py",
)
"""Fast ones first: one failure is enough."""

EQUIVALENT: dict[str, str] = {
    "claim.py _paired.further: max(0, least - n) -> min(0, least - n)": (
        "further_examples already asks for at least so many as are short of n_min"
    ),
    "claim_values.py grow: enough - short > 0.02 * enough -> enough - short >= 0.02 * enough": (
        "two numbers of a bisection; that their gap is 2 % to the last bit makes one step more, no other answer"
    ),
}
"""Mutants that no input tells from the judge, and why."""

FAILED, INTERRUPTED, ENDLESS = 1, 2, {-9, -24}
"""Exit codes of pytest that mean: noticed. A module that no longer imports interrupts the collection."""


class _Runner:
    """A process that runs the tests in a folder, one copy of the project at a time."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(template, folder)
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mutant_runner.py")), *TESTS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": "", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def run(self) -> int:
        """Run the tests in the folder as it is; the first time, compiled tests are kept."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self.folder}\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def run_mutant(self, mutant: Mutant) -> int:
        """Run them with one module exchanged, and put it back."""
        path = self.folder / "checks" / mutant.file
        original, stamp = path.read_bytes(), path.stat()
        path.write_text(mutant.source)
        # Later than the compiled module beside it, whatever the clock's grain.
        os.utime(path, (stamp.st_atime, stamp.st_mtime + 10))
        try:
            return self.run()
        finally:
            path.write_bytes(original)
            os.utime(path, (stamp.st_atime, stamp.st_mtime))

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _template(folder: Path) -> Path:
    """Copy what the tests need: the checks, the tests and the configuration of pytest; compiled, to start fast."""
    import compileall

    folder.mkdir()
    shutil.copytree(ROOT / "checks", folder / "checks", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "tests/conftest.py", *TESTS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    assert compileall.compile_dir(folder / "checks", quiet=1)
    return folder


@contextmanager
def _runners(folder: Path) -> Iterator[list[_Runner]]:
    template = _template(folder / "template")
    runners = [_Runner(template, folder / f"copy-{index}") for index in range(WORKERS)]
    try:
        yield runners
    finally:
        for runner in runners:
            runner.close()


def _survivors(runners: list[_Runner], mutants: list[Mutant]) -> tuple[list[str], dict[str, int]]:
    """Return the mutants that no test noticed, and those whose tests ended in another way than by failing."""

    def run_share(index: int) -> list[tuple[str, int]]:
        return [(mutant.name, runners[index].run_mutant(mutant)) for mutant in mutants[index :: len(runners)]]

    with ThreadPoolExecutor(len(runners)) as pool:
        codes = dict(pair for share in pool.map(run_share, range(len(runners))) for pair in share)
    survivors = [name for name, code in codes.items() if code == 0]
    strange = {name: code for name, code in codes.items() if code not in {0, FAILED, INTERRUPTED, *ENDLESS}}
    return survivors, strange


@pytest.mark.timeout(1800)
def test_every_comparison_of_the_judge_is_tested(tmp_path: Path):
    mutants = mutants_of(ROOT / "checks")
    names = [mutant.name for mutant in mutants]
    assert len(set(names)) == len(names)
    assert {mutant.file for mutant in mutants} == set(JUDGE)
    assert set(EQUIVALENT) <= set(names), "an equivalent mutant is listed that there is no more"
    with _runners(tmp_path) as runners:
        # Else a failure would be no sign of a mutant noticed.
        assert [runner.run() for runner in runners] == [0] * WORKERS
        survivors, strange = _survivors(runners, [m for m in mutants if m.name not in EQUIVALENT])
        assert [runner.run() for runner in runners] == [0] * WORKERS
    assert not strange
    assert not survivors, "\n".join(survivors)
