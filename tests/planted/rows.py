# SPDX-License-Identifier: Apache-2.0
"""The planted defects, each with the rule that must stop it and with its honest counterpart.

Numbers are those of the list in `docs/soundness.md`; what is missing from 1 to 43 is about robustness, shift,
calibration and data, and comes with the checks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.planted import surgery
from tests.planted.harm import Predictions
from tests.planted.workshop import REFUSED, Arrays, Judged, Project, Workshop

__all__ = ["ROWS", "Row"]

_PIXEL_MAX = 16


@dataclass(frozen=True)
class Row:
    """One defect and its clean twin.

    Attributes:
        number: In the list.
        defect: What is wrong.
        rules: The rules that must not pass, each of them; `REFUSED` if the policy cannot be applied at all.
        subjects: What the first of them must say so of, if not anything.
        plant: Makes the project with the defect.
        twin: What the honest counterpart is.
        keep: Makes that one, which must be promoted.
        verdict: What the first of them must say, if it is not just "not PASS".
    """

    number: str
    defect: str
    rules: tuple[str, ...]
    plant: Callable[[Workshop], Project]
    twin: str
    keep: Callable[[Workshop], Project]
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


def _good(workshop: Workshop) -> Project:
    return workshop.copy()


def _predictions(workshop: Workshop) -> Predictions:
    return Predictions(workshop.copy(), workshop.seed)


# --- 1 to 8: files ------------------------------------------------------------------------------------------


def _changed(change: Callable[..., Any], *values: Any) -> Callable[[Workshop], Project]:
    """The good candidate's file with one change."""
    return lambda workshop: workshop.with_file(change(workshop.good.candidate, *values))


def _calibrated_on_ones(quantile: float) -> Callable[[Workshop], Project]:
    """Ranges of activations from class 1 alone, and what lies above a quantile taken for outliers."""

    def make(workshop: Workshop) -> Project:
        split = workshop.dataset.split("calibration")
        images = split.images[split.labels == 1]
        return workshop.with_file(surgery.recalibrate(workshop.good.candidate, images, quantile))

    return make


def _calibrated_on_all(workshop: Workshop) -> Project:
    images = workshop.dataset.split("calibration").images
    return workshop.with_file(surgery.recalibrate(workshop.good.candidate, images, 1.0))


def _swapped_and_put_back(workshop: Workshop) -> Project:
    swapped = surgery.swap_last_rows(workshop.good.candidate, 3, 8)
    return workshop.with_file(surgery.reorder_scores(swapped, [0, 1, 2, 8, 4, 5, 6, 7, 3, 9]))


# --- 9 to 14: predictions -----------------------------------------------------------------------------------


def _class_damage(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    assert predictions.lose(predictions.labels == 8, 11) == 11
    return predictions.write()


def _condition_damage(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    assert predictions.lose(predictions.light == "dim", 15) == 15
    return predictions.write()


def _intersection_damage(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    assert predictions.lose((predictions.light == "dim") & (predictions.glyph == "closed"), 9) == 9
    return predictions.write()


def _simpson_trade(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    dim = predictions.light == "dim"
    predictions.gain(~dim, len(dim))
    assert predictions.lose(dim, 16) == 16
    return predictions.write()


def _few_and_scattered(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    everywhere = np.ones(len(predictions.labels), dtype=bool)
    predictions.gain(everywhere, 2)
    assert predictions.lose(everywhere, 4) == 4
    return predictions.write()


def _random_slice_labels(workshop: Workshop) -> Project:
    project = workshop.copy()
    random = np.random.default_rng([workshop.seed, 0x51DE])

    def change(_: dict[str, Any], arrays: Arrays) -> None:
        for name in ("slice:light", "slice:glyph"):
            arrays[name] = random.permutation(arrays[name])

    project.edit("examples.npz", change)
    project.tabulate_groups()
    return project


def _shuffled_order(workshop: Workshop) -> Project:
    project = workshop.copy()
    random = np.random.default_rng([workshop.seed, 0x0DE5])

    def change(_: dict[str, Any], arrays: Arrays) -> None:
        order = random.permutation(len(arrays["ids"]))
        arrays.update({name: array[order] for name, array in arrays.items()})

    # Each table in an order of its own: only ids say what belongs together.
    for name in ("examples.npz", "baseline.npz", "candidate.npz"):
        project.edit(name, change)
    return project


def _targeted_flips(targets: list[int]) -> Callable[[Workshop], Project]:
    def make(workshop: Workshop) -> Project:
        predictions = _predictions(workshop)
        predictions.flip(targets)
        return predictions.write()

    return make


# --- 17 to 21: what holds before any statistic does ---------------------------------------------------------


def _nan_on_strange_images(workshop: Workshop) -> Project:
    """NaN on nine images of the test split, and on none that anybody looked at before it."""
    seen = np.concatenate([workshop.dataset.split(name).images for name in ("calibration", "validation")])
    random = np.random.default_rng([workshop.seed, 0x0A0])
    for _ in range(1000):
        direction = random.normal(size=seen.shape[1:]).astype(np.float32)
        products = np.sort((workshop.test_split.images * direction).sum(axis=(1, 2, 3)))
        limit = float(products[-10:-8].mean())
        if (seen * direction).sum(axis=(1, 2, 3)).max() < limit:
            return workshop.with_file(surgery.break_beyond(workshop.good.candidate, direction, limit))
    raise AssertionError("no direction in which nine test images lie beyond all others")


def _root_of_what_stays_positive(workshop: Workshop) -> Project:
    ink = np.ones((1, 8, 8), np.float32)
    return workshop.with_file(surgery.break_beyond(workshop.good.candidate, ink, 64 * _PIXEL_MAX + 1))


def _batch_statistics(workshop: Workshop) -> Project:
    ink = float(workshop.dataset.split("train").images.mean())
    return workshop.with_file(surgery.normalise_by_batch(workshop.good.candidate, ink, 3.0))


def _noise(deviation: float) -> Callable[[Workshop], Project]:
    def make(workshop: Workshop) -> Project:
        import torch

        # The twin's noise is its mean: gradients of this file are those without it.
        operators = {"RandomNormalLike": lambda call: torch.zeros_like(call.tensor(0))}
        return workshop.with_file(surgery.add_noise(workshop.good.candidate, deviation), operators=operators)

    return make


def _rolled(*, with_ids: bool) -> Callable[[Workshop], Project]:
    def make(workshop: Workshop) -> Project:
        project = workshop.copy()

        def change(_: dict[str, Any], arrays: Arrays) -> None:
            count = len(arrays["ids"]) // 10
            for name in ("ids", "scores") if with_ids else ("scores",):
                arrays[name][:count] = np.roll(arrays[name][:count], 1, axis=0)

        project.edit("candidate.npz", change)
        project.tabulate_groups()
        return project

    return make


def _one_level_for_all(workshop: Workshop) -> Project:
    """The condition was lost on the way, and a default stands in its place."""
    project = workshop.copy()

    def change(_: dict[str, Any], arrays: Arrays) -> None:
        arrays["slice:light"] = np.full_like(arrays["slice:light"], "normal")

    project.edit("examples.npz", change)
    project.tabulate_groups()
    return project


def _no_column(workshop: Workshop) -> Project:
    project = workshop.copy()

    def change(header: dict[str, Any], arrays: Arrays) -> None:
        del arrays["slice:light"]
        del header["levels"]["light"]

    project.edit("examples.npz", change)
    project.tabulate_groups()
    return project


# --- 38 to 41: time ----------------------------------------------------------------------------------------


def _slower(share: float) -> Callable[[Workshop], Project]:
    """The baseline itself with more work: it decides alike, and takes longer."""
    return lambda workshop: workshop.with_file(surgery.add_work(workshop.good.baseline, share), timed=True)


def _set_medians(arrays: Arrays, model: str) -> None:
    arrays[f"{model}_ms"] = np.median(arrays[f"{model}_calls_ms"], axis=-1)


def _hiccups(milliseconds: float) -> Callable[[Workshop], Project]:
    """Every fiftieth call of the candidate waits, in the calls that were really timed."""

    def make(workshop: Workshop) -> Project:
        project = workshop.copy()

        def change(_: dict[str, Any], arrays: Arrays) -> None:
            arrays["candidate_calls_ms"].reshape(-1)[24::50] += milliseconds
            _set_medians(arrays, "candidate")

        project.edit("timing.npz", change)
        return project

    return make


def _loaded(share: float, *models: str) -> Callable[[Workshop], Project]:
    """The host is busy with something else whenever one of `models` is timed."""

    def make(workshop: Workshop) -> Project:
        project = workshop.copy()

        def change(_: dict[str, Any], arrays: Arrays) -> None:
            for model in models:
                for name in (f"{model}_ms", f"{model}_calls_ms"):
                    if name in arrays:
                        arrays[name] = arrays[name] * (1 + share)

        project.edit("timing.npz", change)
        return project

    return make


def _other_provider(workshop: Workshop) -> Project:
    """The candidate was declared to run on one provider, and its sessions came up with another."""
    project = workshop.copy()

    def change(header: dict[str, Any], _: Arrays) -> None:
        header["providers"] = {
            "declared": ["CUDAExecutionProvider", "CPUExecutionProvider"],
            "candidate": ["CPUExecutionProvider"],
        }

    project.edit("candidate.npz", change)
    return project


# --- 42, 43: groups and units -------------------------------------------------------------------------------


def _induced_gap(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    assert predictions.lose(predictions.light == "dim", 17) == 17
    return predictions.write()


def _same_everywhere(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    for level, losses in (("dim", 1), ("normal", 2), ("bright", 1)):
        assert predictions.lose(predictions.light == level, losses) == losses
    return predictions.write()


def filmed(workshop: Workshop, subjects: int, frames: int, *, declared: bool) -> Project:
    """Film so many digits of the test split; what differs from frame to frame is one grey level of noise."""
    split = workshop.test_split
    random = np.random.default_rng([workshop.seed, 0xF12A])
    chosen = np.repeat(np.sort(random.permutation(len(split.labels))[:subjects]), frames)
    pixels = split.images[chosen] + random.integers(-1, 2, split.images[chosen].shape)
    pixels = np.clip(pixels, 0, _PIXEL_MAX).astype(np.uint8)
    labels = np.array(workshop.dataset.classes)[split.labels[chosen]]
    names = np.array([f"subject-{index:04d}" for index in chosen])
    return workshop.with_frames(pixels, labels, names, declared=declared)


ROWS: tuple[Row, ...] = (
    Row(
        "1",
        "weight clipping: int8 scale x 0.2",
        ("accuracy-overall",),
        _changed(surgery.clip_weights, 0.2),
        "int8, one scale a channel",
        _good,
    ),
    Row(
        "2",
        "zero point: 24 codes off in layer 1",
        ("accuracy-overall",),
        _changed(surgery.shift_first_codes, 24),
        "int8, one scale a layer",
        _changed(surgery.one_scale_a_layer),
    ),
    Row(
        "3",
        "too few bits: 2-bit weights",
        ("accuracy-overall",),
        _changed(surgery.fewer_bits, 2),
        "weights in 16 bits",
        lambda workshop: workshop.with_file(surgery.store_half(workshop.good.baseline)),
    ),
    Row(
        "4",
        "over-pruning: 90 % by magnitude, no recovery",
        ("accuracy-overall",),
        _changed(surgery.drop_smallest, 0.9),
        "30 % pruned, recovered",
        lambda workshop: workshop.with_file(workshop.pruned),
    ),
    Row(
        "5a",
        "bad calibration: range is 60 % quantile of class 1",
        ("accuracy-overall",),
        _calibrated_on_ones(0.6),
        "calibrated on all classes, full range",
        _calibrated_on_all,
    ),
    Row(
        "5b",
        "bad calibration: range is 95 % quantile of class 1",
        ("accuracy-overall",),
        _calibrated_on_ones(0.95),
        "calibrated on all classes, full range",
        _calibrated_on_all,
    ),
    Row(
        "6",
        "normalisation: candidate sees x / 2 + 1 / 2",
        ("accuracy-overall",),
        _changed(surgery.rescale_image, (0.5, 8.0)),
        "scaled to [0, 1] and back",
        _changed(surgery.rescale_image, (1 / 16, 0.0), (16.0, 0.0)),
    ),
    Row(
        "7",
        "axis swap: candidate sees transposed images",
        ("accuracy-overall",),
        _changed(surgery.transpose_image, 1),
        "transposed twice",
        _changed(surgery.transpose_image, 2),
    ),
    Row(
        "8",
        "label map: rows 3 and 8 of the last layer swapped",
        ("accuracy-classes",),
        _changed(surgery.swap_last_rows, 3, 8),
        "swapped, and put back behind it",
        _swapped_and_put_back,
        subjects=("label=3", "label=8"),
    ),
    Row(
        "9",
        "class damage: 11 losses inside class 8",
        ("accuracy-classes",),
        _class_damage,
        "identical copy",
        lambda workshop: workshop.with_file(workshop.good.layout.baseline / "model.onnx"),
        subjects=("label=8",),
    ),
    Row(
        "10",
        "condition damage: 15 losses in the dim quarter",
        ("accuracy-light",),
        _condition_damage,
        "4 losses and 2 gains anywhere",
        _few_and_scattered,
        subjects=("light=dim",),
    ),
    Row(
        "11",
        "intersection damage: 9 losses in dim 3, 8, 9",
        ("accuracy-intersections",),
        _intersection_damage,
        "random slice labels",
        _random_slice_labels,
        subjects=("light*glyph=dim*closed",),
    ),
    Row(
        "12",
        "Simpson trade: 16 losses in dim, gains elsewhere",
        ("accuracy-light", "disparity-added"),
        _simpson_trade,
        "test order shuffled, in each table otherwise",
        _shuffled_order,
        subjects=("light=dim",),
    ),
    Row(
        "13",
        "silent retrain: other seed, same accuracy",
        ("churn",),
        lambda workshop: workshop.with_file(workshop.retrained),
        "graph-optimised export",
        _changed(surgery.optimise),
    ),
    Row(
        "14",
        "targeted flips: 12 to class 1",
        ("flip-targets",),
        _targeted_flips([1] * 12),
        "5 flips to five classes",
        _targeted_flips([1, 3, 5, 7, 9]),
        subjects=("overall for 1",),
    ),
    Row(
        "17",
        "NaN outputs on 9 test images",
        ("outputs-finite",),
        _nan_on_strange_images,
        "the same root of what stays positive",
        _root_of_what_stays_positive,
    ),
    Row(
        "18",
        "batch dependence: normalised by the batch's mean",
        ("batch-scores-alike",),
        _batch_statistics,
        "other batch size",
        lambda workshop: workshop.with_file(
            workshop.good.layout.finalist("first") / "model.onnx", batch_size=64
        ),
    ),
    Row(
        "19",
        "non-determinism: noise of sd 0.5 on the scores",
        ("repeats",),
        _noise(0.5),
        "the same node, sd 0",
        _noise(0.0),
    ),
    Row(
        "20",
        "rows misaligned: 10 % of the scores rolled",
        ("accuracy-overall",),
        _rolled(with_ids=False),
        "rolled along with their ids",
        _rolled(with_ids=True),
    ),
    Row(
        "21a",
        "slice column lost: one level for all",
        ("accuracy-light",),
        _one_level_for_all,
        "random slice labels",
        _random_slice_labels,
    ),
    Row(
        "21b",
        "slice column lost: no column",
        (REFUSED,),
        _no_column,
        "random slice labels",
        _random_slice_labels,
    ),
    Row(
        "38a",
        "10 % more work than the baseline",
        ("faster",),
        _slower(0.1),
        "int8, timed",
        _good,
    ),
    Row(
        "38b",
        "twice the work of the baseline",
        ("faster",),
        _slower(1.0),
        "int8, timed",
        _good,
        verdict="FAIL",
    ),
    Row(
        "39",
        "tail spikes: 50 ms in 1 call of 50",
        ("tail-latency",),
        _hiccups(50.0),
        "2 ms in 1 call of 50",
        _hiccups(2.0),
    ),
    Row(
        "40",
        "drifting host: load on the baseline alone",
        ("faster",),
        _loaded(0.4, "baseline"),
        "the same load on all three",
        _loaded(0.4, "baseline", "candidate", "control"),
    ),
    Row(
        "41",
        "provider fallback",
        ("providers-as-declared",),
        _other_provider,
        "providers as declared",
        _good,
    ),
    Row(
        "42",
        "induced gap: 17 losses in the dim quarter",
        ("disparity-added",),
        _induced_gap,
        "4 losses, spread evenly",
        _same_everywhere,
    ),
    Row(
        "43",
        "ten frames a subject: 90 subjects, 900 frames",
        ("accuracy-overall",),
        lambda workshop: filmed(workshop, 90, 10, declared=True),
        "one frame a subject, all subjects",
        lambda workshop: filmed(workshop, 899, 1, declared=True),
    ),
)
