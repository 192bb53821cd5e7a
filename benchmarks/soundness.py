# SPDX-License-Identifier: Apache-2.0
"""Whether the gates catch what they must: planted defects, their clean twins, and harm of known size.

    python benchmarks/soundness.py [--seeds 3] [--draws 1000] [--rows 34a,34b]

Each seed is a good pipeline of its own: other splits, other training, other weights. Every defect of
`tests/planted/rows.py` is planted into it and judged by the real gate, and so is its honest counterpart.
Beside it, on the same files, what "accuracy falls by at most two points" would have promoted. Then the
severity ladder: test sets drawn from a population whose harm is 0, 0.5, 1 and 2 times the limit. Prints
Markdown; exit code 1 if a defect was missed, or fewer than nine of ten clean twins were promoted.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Read when numpy is first imported, below; processes share the cores, threads would only fight for them.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

from checks.evidence import Evidence
from checks.statistics.binomial import clopper_pearson_upper
from tests.planted.ladder import LADDER, SEVERITIES, Climbed, Harm, climb
from tests.planted.rows import ROWS, Judgeable, Row
from tests.planted.workshop import Judged, Workshop

_WORKERS = 2
_LEAST_PROMOTED = 0.9


@dataclass
class _Tally:
    """What happened to one row over the seeds."""

    caught: int = 0
    promoted: int = 0
    naive_defect: int = 0
    naive_twin: int = 0
    others: Counter[str] = field(default_factory=Counter)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _rows(tallies: dict[str, _Tally]) -> list[Row]:
    return [row for row in ROWS if row.number in tallies]


def _tally_rows(workshop: Workshop, tallies: dict[str, _Tally], seed: int) -> None:
    kept: dict[Callable[[Workshop], Judgeable], Judged] = {}
    for row in _rows(tallies):
        tally = tallies[row.number]
        defective = row.plant(workshop).judge()
        caught = row.is_caught(defective)
        tally.caught += caught
        tally.naive_defect += defective.naive
        tally.others.update(rule for rule in defective.wanting if rule not in row.rules)
        if not caught:
            _say(f"seed {seed}, row {row.number} missed: {dict(defective.wanting)}")
        # Some rows share a twin.
        if row.keep not in kept:
            kept[row.keep] = row.keep(workshop).judge()
        twin = kept[row.keep]
        tally.promoted += twin.promoted
        tally.naive_twin += twin.naive
        if not twin.promoted:
            _say(f"seed {seed}, twin of row {row.number} stopped: {dict(twin.wanting)}")


def _row_lines(tallies: dict[str, _Tally], seeds: int) -> Iterator[str]:
    yield (
        "| # | defect | rule that must stop it | caught | stopped also by | naive promotes | clean twin "
        "| promoted | naive promotes |\n|---|---|---|---|---|---|---|---|---|"
    )
    for row in _rows(tallies):
        tally = tallies[row.number]
        rules = ", ".join(f"`{rule}`" for rule in row.rules)
        about = f" ({', '.join(row.subjects)})" if row.subjects else ""
        others = ", ".join(sorted(tally.others)) or "-"
        yield (
            f"| {row.number} | {row.defect} | {rules}{about} | {tally.caught}/{seeds} | {others} "
            f"| {tally.naive_defect}/{seeds} | {row.twin} | {tally.promoted}/{seeds} "
            f"| {tally.naive_twin}/{seeds} |"
        )


def _sum_lines(tallies: dict[str, _Tally], seeds: int) -> Iterator[str]:
    runs = seeds * len(tallies)
    values = list(tallies.values())
    yield f"Defects caught by their rule: {sum(tally.caught for tally in values)} of {runs}."
    yield f"Clean twins promoted: {sum(tally.promoted for tally in values)} of {runs}."
    yield (
        f"Accuracy drop of at most two points alone: promotes {sum(t.naive_defect for t in values)} of "
        f"{runs} defects, and stops {runs - sum(t.naive_twin for t in values)} of {runs} clean twins."
    )


def _climb_all(evidence: Evidence, draws: int) -> dict[tuple[str, float], Climbed]:
    jobs: list[tuple[Harm, float]] = [(harm, severity) for harm in LADDER for severity in SEVERITIES]
    with ProcessPoolExecutor(_WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {
            # What happens at the limit is the promise; the other steps only show the shape.
            (harm.number, severity): pool.submit(
                climb, evidence, harm, severity, draws if severity == 1 else max(1, draws // 4), 0
            )
            for harm, severity in jobs
        }
        return {key: job.result() for key, job in running.items()}


def _ladder_lines(climbed: dict[tuple[str, float], Climbed]) -> Iterator[str]:
    yield (
        "| # | harm at the limit | rule | times the limit | test sets | rule passes | at most (95 %) "
        "| promoted | naive promotes |\n|---|---|---|---|---|---|---|---|---|"
    )
    for harm in LADDER:
        for severity in SEVERITIES:
            found = climbed[harm.number, severity]
            upper = clopper_pearson_upper(found.passed, found.draws, 0.05)
            about = f" ({harm.subject})" if harm.subject else ""
            yield (
                f"| {harm.number} | {harm.what} | `{harm.rule}`{about} | {severity:g} | {found.draws} "
                f"| {found.passed / found.draws:.3f} | {upper:.3f} | {found.promoted / found.draws:.3f} "
                f"| {found.naive / found.draws:.3f} |"
            )


def main() -> int:
    """Run everything, print, and say by the exit code whether the gates are sound."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="good pipelines, 3 by default")
    parser.add_argument(
        "--draws", type=int, default=1000, help="test sets at the limit, a quarter of it elsewhere; 0: none"
    )
    parser.add_argument("--rows", default="", metavar="A,B", help="numbers of the rows; all by default")
    arguments = parser.parse_args()
    known = [row.number for row in ROWS]
    asked = arguments.rows.split(",") if arguments.rows else known
    if not set(asked) <= set(known):
        parser.error(f"expected rows among {', '.join(known)}, got {arguments.rows}")
    tallies = {number: _Tally() for number in known if number in asked}
    start = time.perf_counter()
    climbed: dict[tuple[str, float], Climbed] = {}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as name:
            _say(f"seed {seed}: building the good pipeline ({time.perf_counter() - start:.0f} s)")
            workshop = Workshop(Path(name) / "planted", seed)
            _say(f"seed {seed}: planting {len(tallies)} defects ({time.perf_counter() - start:.0f} s)")
            _tally_rows(workshop, tallies, seed)
            evidence = workshop.good.evidence()
    for line in _row_lines(tallies, arguments.seeds):
        print(line)
    print()
    for line in _sum_lines(tallies, arguments.seeds):
        print(line)
    if arguments.draws:
        _say(f"severity ladder ({time.perf_counter() - start:.0f} s)")
        climbed = _climb_all(evidence, arguments.draws)
        print()
        for line in _ladder_lines(climbed):
            print(line)
    _say(f"done ({time.perf_counter() - start:.0f} s)")
    runs = arguments.seeds * len(tallies)
    missed = any(tally.caught < arguments.seeds for tally in tallies.values())
    promoted = sum(tally.promoted for tally in tallies.values())
    return 1 if missed or promoted < _LEAST_PROMOTED * runs else 0


if __name__ == "__main__":
    sys.exit(main())
