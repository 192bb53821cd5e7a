# SPDX-License-Identifier: Apache-2.0
"""The planted defects, each with the rule that must stop it and with its honest counterpart.

Numbers are those of the list in `docs/soundness.md`; what is missing from 1 to 43 is about robustness, shift,
calibration and poisoned data, and comes with the checks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.planted import defects, surgery
from tests.planted.shipped import VALIDATE, VERIFY, ship
from tests.planted.workshop import REFUSED, Judged, Workshop

__all__ = ["ROWS", "Row"]


class Judgeable(Protocol):
    """What a defect is planted into: a project before the gate, or what came before or after it."""

    def judge(self) -> Judged:
        """Return what becomes of it."""


@dataclass(frozen=True)
class Row:
    """One defect and its clean twin.

    Attributes:
        number: In the list.
        defect: What is wrong.
        rules: The rules that must not pass, each of them; `REFUSED` if the policy cannot be applied at all,
            `VALIDATE` if the data, `VERIFY` if the bundle must be refused.
        subjects: What the first of them must say so of, if not anything.
        plant: Makes the project with the defect.
        twin: What the honest counterpart is.
        keep: Makes that one, which must be promoted.
        verdict: What the first of them must say, if it is not just "not PASS".
    """

    number: str
    defect: str
    rules: tuple[str, ...]
    plant: Callable[[Workshop], Judgeable]
    twin: str
    keep: Callable[[Workshop], Judgeable]
    subjects: tuple[str, ...] = ()
    verdict: str = ""

    def is_caught(self, judged: Judged) -> bool:
        """Whether the defect was stopped, and by the rules that are there for it."""
        return (
            not judged.promoted
            and all(judged.says(rule) for rule in self.rules)
            and all(
                judged.says(self.rules[0], subject=subject, verdict=self.verdict)
                for subject in self.subjects or ("",)
            )
        )


ROWS: tuple[Row, ...] = (
    Row(
        "1",
        "weight clipping: int8 scale x 0.2",
        ("accuracy-overall",),
        defects.changed(surgery.clip_weights, 0.2),
        "int8, one scale a channel",
        defects.good,
    ),
    Row(
        "2",
        "zero point: 24 codes off in layer 1",
        ("accuracy-overall",),
        defects.changed(surgery.shift_first_codes, 24),
        "int8, one scale a layer",
        defects.changed(surgery.one_scale_a_layer),
    ),
    Row(
        "3",
        "too few bits: 2-bit weights",
        ("accuracy-overall",),
        defects.changed(surgery.fewer_bits, 2),
        "weights in 16 bits",
        lambda workshop: workshop.with_file(surgery.store_half(workshop.good.baseline)),
    ),
    Row(
        "4",
        "over-pruning: 90 % by magnitude, no recovery",
        ("accuracy-overall",),
        defects.changed(surgery.drop_smallest, 0.9),
        "30 % pruned, recovered",
        lambda workshop: workshop.with_file(workshop.pruned),
    ),
    Row(
        "5a",
        "bad calibration: range is 60 % quantile of class 1",
        ("accuracy-overall",),
        defects.calibrated_on_ones(0.6),
        "calibrated on all classes, full range",
        defects.calibrated_on_all,
    ),
    Row(
        "5b",
        "bad calibration: range is 95 % quantile of class 1",
        ("accuracy-overall",),
        defects.calibrated_on_ones(0.95),
        "calibrated on all classes, full range",
        defects.calibrated_on_all,
    ),
    Row(
        "6",
        "normalisation: candidate sees x / 2 + 1 / 2",
        ("accuracy-overall",),
        defects.changed(surgery.rescale_image, (0.5, 8.0)),
        "scaled to [0, 1] and back",
        defects.changed(surgery.rescale_image, (1 / 16, 0.0), (16.0, 0.0)),
    ),
    Row(
        "7",
        "axis swap: candidate sees transposed images",
        ("accuracy-overall",),
        defects.changed(surgery.transpose_image, 1),
        "transposed twice",
        defects.changed(surgery.transpose_image, 2),
    ),
    Row(
        "8",
        "label map: rows 3 and 8 of the last layer swapped",
        ("accuracy-classes",),
        defects.changed(surgery.swap_last_rows, 3, 8),
        "swapped, and put back behind it",
        defects.swapped_and_put_back,
        subjects=("label=3", "label=8"),
    ),
    Row(
        "9",
        "class damage: 11 losses inside class 8",
        ("accuracy-classes",),
        defects.class_damage,
        "identical copy",
        lambda workshop: workshop.with_file(workshop.good.layout.baseline / "model.onnx"),
        subjects=("label=8",),
    ),
    Row(
        "10",
        "condition damage: 15 losses in the dim quarter",
        ("accuracy-light",),
        defects.condition_damage,
        "4 losses and 2 gains anywhere",
        defects.few_and_scattered,
        subjects=("light=dim",),
    ),
    Row(
        "11",
        "intersection damage: 9 losses in dim 3, 8, 9",
        ("accuracy-intersections",),
        defects.intersection_damage,
        "random slice labels",
        defects.random_slice_labels,
        subjects=("light*glyph=dim*closed",),
    ),
    Row(
        "12",
        "Simpson trade: 16 losses in dim, gains elsewhere",
        ("accuracy-light", "disparity-added"),
        defects.simpson_trade,
        "test order shuffled, in each table otherwise",
        defects.shuffled_order,
        subjects=("light=dim",),
    ),
    Row(
        "13",
        "silent retrain: other seed, same accuracy",
        ("same-model",),
        lambda workshop: workshop.with_file(workshop.retrained),
        "graph-optimised export",
        defects.changed(surgery.optimise),
    ),
    Row(
        "14",
        "targeted flips: 12 to class 1",
        ("flip-targets",),
        defects.targeted_flips([1] * 12),
        "5 flips to five classes",
        defects.targeted_flips([1, 3, 5, 7, 9]),
        subjects=("overall for 1",),
    ),
    Row(
        "17",
        "NaN outputs on 9 test images",
        ("outputs-finite",),
        defects.nan_on_strange_images,
        "the same root of what stays positive",
        defects.root_of_what_stays_positive,
    ),
    Row(
        "18",
        "batch dependence: normalised by the batch's mean",
        ("batch-scores-alike",),
        defects.batch_statistics,
        "other batch size",
        lambda workshop: workshop.with_file(
            workshop.good.layout.finalist("first") / "model.onnx", batch_size=64
        ),
    ),
    Row(
        "19",
        "non-determinism: noise of sd 0.5 on the scores",
        ("repeats",),
        defects.noise(0.5),
        "the same node, sd 0",
        defects.noise(0.0),
    ),
    Row(
        "20",
        "rows misaligned: 10 % of the scores rolled",
        ("accuracy-overall",),
        defects.rolled(with_ids=False),
        "rolled along with their ids",
        defects.rolled(with_ids=True),
    ),
    Row(
        "21a",
        "slice column lost: one level for all",
        ("accuracy-light",),
        defects.one_level_for_all,
        "random slice labels",
        defects.random_slice_labels,
    ),
    Row(
        "21b",
        "slice column lost: no column",
        (REFUSED,),
        defects.no_column,
        "random slice labels",
        defects.random_slice_labels,
    ),
    Row(
        "34a",
        "stale artefact: one byte changed after it was measured",
        ("accuracy-overall",),
        defects.stale_candidate,
        "as it was measured",
        defects.fresh_candidate,
        verdict="ERROR",
    ),
    Row(
        "34b",
        "stale artefact: one byte changed after it was judged, manifest mended",
        (VERIFY,),
        defects.stale_bundle,
        "the bundle as it was made",
        ship,
        subjects=("model.onnx",),
    ),
    Row(
        "35",
        "edited policy: a limit changed after the run, digests mended",
        (VERIFY,),
        defects.edited_policy,
        "judged under that limit",
        defects.judged_under_it,
        subjects=("decision.json",),
    ),
    Row(
        "36",
        "calibration split = test: its images under other ids",
        (VALIDATE,),
        defects.split_by_hand(shared=True),
        "the same splits, apart",
        defects.split_by_hand(shared=False),
        subjects=("images-in-one-split",),
    ),
    Row(
        "37",
        "temperature missing: the division by T = 3 is lost from the ONNX graph",
        ("same-model",),
        defects.temperature(kept=False),
        "T kept in both",
        defects.temperature(kept=True),
    ),
    Row(
        "38a",
        "10 % more work than the baseline",
        ("faster",),
        defects.slower(0.1),
        "int8, timed",
        defects.good,
    ),
    Row(
        "38b",
        "twice the work of the baseline",
        ("faster",),
        defects.slower(1.0),
        "int8, timed",
        defects.good,
        verdict="FAIL",
    ),
    Row(
        "39",
        "tail spikes: 50 ms in 1 call of 50",
        ("tail-latency",),
        defects.hiccups(50.0),
        "2 ms in 1 call of 50",
        defects.hiccups(2.0),
    ),
    Row(
        "40",
        "drifting host: load on the baseline alone",
        ("faster",),
        defects.loaded(0.4, "baseline"),
        "the same load on all three",
        defects.loaded(0.4, "baseline", "candidate", "control"),
    ),
    Row(
        "41",
        "provider fallback",
        ("providers-as-declared",),
        defects.other_provider,
        "providers as declared",
        defects.good,
    ),
    Row(
        "42",
        "induced gap: 17 losses in the dim quarter",
        ("disparity-added",),
        defects.induced_gap,
        "4 losses, spread evenly",
        defects.same_everywhere,
    ),
    Row(
        "43",
        "ten frames a subject: 90 subjects, 900 frames",
        ("accuracy-overall",),
        lambda workshop: defects.filmed(workshop, 90, 10, declared=True),
        "one frame a subject, all subjects",
        lambda workshop: defects.filmed(workshop, 899, 1, declared=True),
    ),
)
