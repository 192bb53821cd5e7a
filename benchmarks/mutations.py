# SPDX-License-Identifier: Apache-2.0
"""Whether `leangate verify` finds every changed byte: random single-byte mutations of a bundle.

    python benchmarks/mutations.py [--bundle artifacts/bundle] [--mutations 10000] [--commands 200]

Each mutation gives one byte of one file another value; the place is drawn half of the time from all bytes
alike, and half of the time from a file that is drawn from all files alike, so that small files get their
share. The bundle is verified, and the byte put back. Three arms: signed and verified with the key to trust;
not signed; signed, and verified without a key. Prints Markdown; exit code 1 if one went by in the first two.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Read when numpy is first imported, below.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np

from checks.errors import LeanGateError
from pipeline.attestation.envelopes import attest
from pipeline.attestation.keys import make_keys, read_signer, read_trusted
from pipeline.card.contents import ATTESTATIONS, read_bundle
from pipeline.card.files import list_files
from pipeline.verification import verify_bundle

_REPEATS = 5


@dataclass(frozen=True)
class Mutation:
    """One byte of one file, and what it becomes."""

    path: Path
    place: int
    before: int
    after: int

    def write(self, value: int) -> None:
        """Give the byte a value."""
        with self.path.open("r+b") as file:
            file.seek(self.place)
            file.write(bytes([value]))


@dataclass
class Arm:
    """What came of the mutations of one bundle under one question.

    Attributes:
        name: In words.
        runs: How many mutations.
        missed: Those that went by.
        ended: What was found, by the name of the last step that held before.
        seconds: Processor seconds of all of it.
    """

    name: str
    runs: int = 0
    missed: list[Mutation] = field(default_factory=list)
    ended: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


def draw(folder: Path, count: int, seed: int) -> Iterator[Mutation]:
    """Yield mutations of the files that lie in `folder` when each is drawn.

    Args:
        folder: The bundle.
        count: How many.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    files = [path for path in list_files(folder).values() if path.stat().st_size]
    sizes = np.array([path.stat().st_size for path in files], dtype=float)
    for _ in range(count):
        by_size = rng.random() < 0.5
        index = int(rng.choice(len(files), p=sizes / sizes.sum() if by_size else None))
        place = int(rng.integers(int(sizes[index])))
        with files[index].open("rb") as file:
            file.seek(place)
            before = file.read(1)[0]
        yield Mutation(files[index], place, before, (before + int(rng.integers(1, 256))) % 256)


def verify_mutated(folder: Path, mutation: Mutation, trusted: Mapping[str, Any] | None) -> tuple[bool, str]:
    """Return whether the mutation was found, and the last step that held before it was.

    Args:
        folder: The bundle.
        mutation: One of its bytes, put back before this returns.
        trusted: Keys by their ids; None asks for no signature.
    """
    last = "-"
    mutation.write(mutation.after)
    try:
        for step in verify_bundle(folder, trusted):
            last = step.name
            if step.state == "unchecked":
                return True, last
    except LeanGateError:
        return True, last
    finally:
        mutation.write(mutation.before)
    return False, last


def run_arm(name: str, folder: Path, trusted: Mapping[str, Any] | None, count: int, seed: int) -> Arm:
    """Verify `count` mutations of `folder` in this process."""
    arm = Arm(name)
    start = time.process_time()
    for mutation in draw(folder, count, seed):
        found, last = verify_mutated(folder, mutation, trusted)
        arm.runs += 1
        arm.ended[last] += found
        if not found:
            arm.missed.append(mutation)
    arm.seconds = time.process_time() - start
    return arm


def _run_commands(name: str, folder: Path, keys: Path, count: int, seed: int) -> Arm:
    arm = Arm(name)
    start = time.perf_counter()
    for mutation in draw(folder, count, seed):
        mutation.write(mutation.after)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "leangate", "verify", str(folder), "--trust", str(keys)],
                cwd=Path(__file__).resolve().parents[1],
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            mutation.write(mutation.before)
        arm.runs += 1
        arm.ended[f"exit code {done.returncode}"] += 1
        if done.returncode not in (1, 4) or "Traceback" in done.stderr:
            arm.missed.append(mutation)
    arm.seconds = time.perf_counter() - start
    return arm


def make_bundle(root: Path) -> Path:
    """Make a small bundle, as the tests do, and return its folder."""
    from tests.bundle_project import build_project, judge_project, project_params

    os.environ.pop("LEANGATE_SIGNING_KEY", None)
    layout = build_project(root)
    judge_project(layout)
    importlib.import_module("pipeline.bundle").run(layout, project_params())
    return layout.bundle


def sign_copy(bundle: Path, root: Path) -> tuple[Path, Path]:
    """Return a copy of a bundle signed with a new key, and the folder of that key."""
    folder, keys = Path(shutil.copytree(bundle, root / "signed")), root / "keys"
    (folder / ATTESTATIONS).unlink(missing_ok=True)
    make_keys(keys)
    manifest, contents = read_bundle(folder)
    origin = {"params": {"name": "params.yaml", "digest": {"sha256": "0" * 64}}, "dependencies": []}
    attest(folder, manifest, contents, origin, read_signer(str(keys / "leangate.key")))
    return folder, keys


def _measure(folder: Path, trusted: Mapping[str, Any]) -> tuple[float, float]:
    """Processor seconds of a whole verification: in this process once warm, and of the command."""
    list(verify_bundle(folder, trusted))
    start = time.process_time()
    for _ in range(_REPEATS):
        list(verify_bundle(folder, trusted))
    warm = (time.process_time() - start) / _REPEATS
    before = os.times()
    for _ in range(_REPEATS):
        subprocess.run(
            [sys.executable, "-m", "leangate", "verify", str(folder)],
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            check=True,
        )
    after = os.times()
    children = after.children_user + after.children_system - before.children_user - before.children_system
    return warm, children / _REPEATS


def _lines(arms: list[Arm]) -> Iterator[str]:
    yield "| bundle | mutations | found | missed | in | seconds |"
    yield "|---|---|---|---|---|---|"
    for arm in arms:
        where = Counter(mutation.path.name for mutation in arm.missed)
        told = ", ".join(f"{count} in {name}" for name, count in where.most_common()) or "-"
        yield (
            f"| {arm.name} | {arm.runs:,} | {arm.runs - len(arm.missed):,} | {len(arm.missed)} | {told} "
            f"| {arm.seconds:.0f} |"
        )


def main() -> int:
    """Run all arms, print, and say by the exit code whether a changed byte went by."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="the bundle to change copies of; by default a small one")
    parser.add_argument("--mutations", type=int, default=10_000, help="of each arm; %(default)s by default")
    parser.add_argument(
        "--commands", type=int, default=200, help="through the command; %(default)s by default"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        bundle = options.bundle or make_bundle(root / "project")
        signed, keys = sign_copy(bundle, root)
        unsigned = Path(shutil.copytree(signed, root / "unsigned"))
        (unsigned / ATTESTATIONS).unlink()
        trusted = read_trusted(keys)
        count, seed = options.mutations, options.seed
        arms = [
            run_arm("signed, `--trust`", signed, trusted, count, seed),
            run_arm("not signed", unsigned, None, count, seed),
            run_arm("signed, no `--trust`", signed, None, count, seed),
            _run_commands("signed, `--trust`, the command", signed, keys, options.commands, seed + 1),
        ]
        files = list_files(signed)
        size = sum(path.stat().st_size for path in files.values())
        warm, command = _measure(signed, trusted)
    print(f"{len(files)} files, {size:,} bytes; whole verification: {warm:.2f} s of processor time in a")
    print(f"process that has its modules, {command:.2f} s as a command.\n")
    print("\n".join(_lines(arms)))
    print()
    for arm in arms:
        print(f"{arm.name}: {', '.join(f'{key} {value:,}' for key, value in arm.ended.most_common())}")
        for miss in arm.missed[:5]:
            print(f"  missed: {miss.path.name} byte {miss.place}: {miss.before} -> {miss.after}")
    return 1 if any(arm.missed for arm in (arms[0], arms[1], arms[3])) else 0


if __name__ == "__main__":
    sys.exit(main())
