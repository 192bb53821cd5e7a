# SPDX-License-Identifier: Apache-2.0
"""The planted defects and their clean twins: each function makes the project in which one of them holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from checks.canonical import sha256_file
from tests.planted import surgery
from tests.planted.harm import Predictions
from tests.planted.shipped import Shipped, Validated, ship, timeless_policy, untimed
from tests.planted.workshop import HERE, SLOT, Arrays, Project, Workshop

_PIXEL_MAX = 16


def good(workshop: Workshop) -> Project:
    return workshop.copy()


def _predictions(workshop: Workshop) -> Predictions:
    return Predictions(workshop.copy(), workshop.seed)


# --- 1 to 8: files ------------------------------------------------------------------------------------------


def changed(change: Callable[..., Any], *values: Any) -> Callable[[Workshop], Project]:
    """The good candidate's file with one change."""
    return lambda workshop: workshop.with_file(change(workshop.good.candidate, *values))


def calibrated_on_ones(quantile: float) -> Callable[[Workshop], Project]:
    """Ranges of activations from class 1 alone, and what lies above a quantile taken for outliers."""

    def make(workshop: Workshop) -> Project:
        split = workshop.dataset.split("calibration")
        images = split.images[split.labels == 1]
        return workshop.with_file(surgery.recalibrate(workshop.good.candidate, images, quantile))

    return make


def calibrated_on_all(workshop: Workshop) -> Project:
    images = workshop.dataset.split("calibration").images
    return workshop.with_file(surgery.recalibrate(workshop.good.candidate, images, 1.0))


def swapped_and_put_back(workshop: Workshop) -> Project:
    swapped = surgery.swap_last_rows(workshop.good.candidate, 3, 8)
    return workshop.with_file(surgery.reorder_scores(swapped, [0, 1, 2, 8, 4, 5, 6, 7, 3, 9]))


# --- 9 to 14: predictions -----------------------------------------------------------------------------------


def class_damage(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    assert predictions.lose(predictions.labels == 8, 11) == 11
    return predictions.write()


def condition_damage(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    assert predictions.lose(predictions.light == "dim", 15) == 15
    return predictions.write()


def intersection_damage(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    assert predictions.lose((predictions.light == "dim") & (predictions.glyph == "closed"), 9) == 9
    return predictions.write()


def simpson_trade(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    dim = predictions.light == "dim"
    predictions.gain(~dim, len(dim))
    assert predictions.lose(dim, 16) == 16
    return predictions.write()


def few_and_scattered(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    everywhere = np.ones(len(predictions.labels), dtype=bool)
    predictions.gain(everywhere, 2)
    assert predictions.lose(everywhere, 4) == 4
    return predictions.write()


def random_slice_labels(workshop: Workshop) -> Project:
    project = workshop.copy()
    random = np.random.default_rng([workshop.seed, 0x51DE])

    def change(_: dict[str, Any], arrays: Arrays) -> None:
        for name in ("slice:light", "slice:glyph"):
            arrays[name] = random.permutation(arrays[name])

    project.edit("examples.npz", change)
    project.keep_slices()
    project.tabulate_groups()
    return project


def shuffled_order(workshop: Workshop) -> Project:
    project = workshop.copy()
    random = np.random.default_rng([workshop.seed, 0x0DE5])

    def change(_: dict[str, Any], arrays: Arrays) -> None:
        order = random.permutation(len(arrays["ids"]))
        arrays.update({name: array[order] for name, array in arrays.items()})

    # Each table in an order of its own: only ids say what belongs together.
    for name in ("examples.npz", "baseline.npz", "candidate.npz"):
        project.edit(name, change)
    return project


def targeted_flips(targets: list[int]) -> Callable[[Workshop], Project]:
    def make(workshop: Workshop) -> Project:
        predictions = _predictions(workshop)
        predictions.flip(targets)
        return predictions.write()

    return make


# --- 17 to 21: what holds before any statistic does ---------------------------------------------------------


def nan_on_strange_images(workshop: Workshop) -> Project:
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


def root_of_what_stays_positive(workshop: Workshop) -> Project:
    ink = np.ones((1, 8, 8), np.float32)
    return workshop.with_file(surgery.break_beyond(workshop.good.candidate, ink, 64 * _PIXEL_MAX + 1))


def batch_statistics(workshop: Workshop) -> Project:
    ink = float(workshop.dataset.split("train").images.mean())
    return workshop.with_file(surgery.normalise_by_batch(workshop.good.candidate, ink, 3.0))


def noise(deviation: float) -> Callable[[Workshop], Project]:
    def make(workshop: Workshop) -> Project:
        import torch

        # The twin's noise is its mean: gradients of this file are those without it.
        operators = {"RandomNormalLike": lambda call: torch.zeros_like(call.tensor(0))}
        return workshop.with_file(surgery.add_noise(workshop.good.candidate, deviation), operators=operators)

    return make


def rolled(*, with_ids: bool) -> Callable[[Workshop], Project]:
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


def one_level_for_all(workshop: Workshop) -> Project:
    """The condition was lost on the way, and a default stands in its place."""
    project = workshop.copy()

    def change(_: dict[str, Any], arrays: Arrays) -> None:
        arrays["slice:light"] = np.full_like(arrays["slice:light"], "normal")

    project.edit("examples.npz", change)
    project.keep_slices()
    project.tabulate_groups()
    return project


def no_column(workshop: Workshop) -> Project:
    project = workshop.copy()

    def change(header: dict[str, Any], arrays: Arrays) -> None:
        del arrays["slice:light"]
        del header["levels"]["light"]

    project.edit("examples.npz", change)
    project.keep_slices()
    project.tabulate_groups()
    return project


# --- 34 to 37: files that do not belong together ------------------------------------------------------------


def _change_one_byte(path: Path, seed: int) -> None:
    data = bytearray(path.read_bytes())
    data[int(np.random.default_rng([seed, 0xB17E]).integers(len(data)))] ^= 1
    path.write_bytes(data)


def stale_candidate(workshop: Workshop) -> Project:
    """The file changed after the probes had run it."""
    project = workshop.copy()
    _change_one_byte(project.layout.finalist(SLOT) / "model.onnx", workshop.seed)
    return untimed(workshop, project)


def fresh_candidate(workshop: Workshop) -> Project:
    return untimed(workshop, workshop.copy())


def stale_bundle(workshop: Workshop) -> Shipped:
    """The file changed after it was judged, and the manifest was mended."""
    shipped = ship(workshop)
    _change_one_byte(shipped.folder / "model.onnx", workshop.seed)
    shipped.mend()
    return shipped


_STRICTER = (
    "    margin: 0.02 # 899 digits",
    "    margin: 0.019 # 899 digits",
)
"""Of `accuracy-overall`: a limit that the good candidate meets as well, so that only the edit is wrong."""


def _stricter(policy: str) -> str:
    changed = policy.replace(*_STRICTER)
    assert changed != policy
    return changed


def edited_policy(workshop: Workshop) -> Shipped:
    """The policy of a finished bundle is made to ask for more than it did; every digest of it is mended."""
    shipped = ship(workshop)
    path = shipped.folder / "policy.yaml"
    path.write_text(_stricter(path.read_text()))
    digest = sha256_file(path)
    shipped.edit("decision.json", lambda value: value["policy"].update(sha256=digest))
    decision = sha256_file(shipped.folder / "decision.json")
    shipped.edit(
        "records/verdict.json", lambda value: value.update(policy_sha256=digest, decision_sha256=decision)
    )
    shipped.mend()
    return shipped


def judged_under_it(workshop: Workshop) -> Shipped:
    return ship(workshop, policy=_stricter(timeless_policy()))


def split_by_hand(*, shared: bool) -> Callable[[Workshop], Project]:
    """The source names the splits; calibration images may be those of the test split under other ids."""

    def make(workshop: Workshop) -> Project:
        import pipeline.prepare

        kept = workshop.dataset.columns
        pixels, labels = workshop.dataset.pixels.copy(), kept["label"].copy()
        if shared:
            to = np.flatnonzero(kept["split"] == "calibration")
            source = np.flatnonzero(kept["split"] == "test")[: len(to)]
            pixels[to], labels[to] = pixels[source], labels[source]
        root = workshop.folder / f"split-{'shared' if shared else 'apart'}"
        root.mkdir()
        project = Validated(root, workshop.params, workshop.policy)
        shutil.copyfile(HERE / "source.py", root / "source.py")
        names = {"ids": "id", "units": "unit", "splits": "split"}
        columns = {name: kept[column] for name, column in names.items()}
        np.savez(root / "frames.npz", pixels=pixels, labels=labels, **columns)
        prepare = workshop.params.prepare.model_copy(update={"source": "source.py:frames", "splits": None})
        pipeline.prepare.run(project.layout, workshop.params.model_copy(update={"prepare": prepare}))
        return project

    return make


_TEMPERATURE = 3.0


def temperature(*, kept: bool) -> Callable[[Workshop], Project]:
    """The baseline's graph ends in its temperature; on the candidate's way it may get lost."""

    def make(workshop: Workshop) -> Project:
        baseline = surgery.divide_scores(workshop.good.baseline, _TEMPERATURE)
        candidate = workshop.good.candidate
        if kept:
            candidate = surgery.divide_scores(candidate, _TEMPERATURE)
        return untimed(workshop, workshop.with_file(candidate, baseline=baseline))

    return make


# --- 38 to 41: time ----------------------------------------------------------------------------------------


def slower(share: float) -> Callable[[Workshop], Project]:
    """The baseline itself with more work: it decides alike, and takes longer."""
    return lambda workshop: workshop.with_file(surgery.add_work(workshop.good.baseline, share), timed=True)


def _set_medians(arrays: Arrays, model: str) -> None:
    arrays[f"{model}_ms"] = np.median(arrays[f"{model}_calls_ms"], axis=-1)


def hiccups(milliseconds: float) -> Callable[[Workshop], Project]:
    """Every fiftieth call of the candidate waits, in the calls that were really timed."""

    def make(workshop: Workshop) -> Project:
        project = workshop.copy()

        def change(_: dict[str, Any], arrays: Arrays) -> None:
            arrays["candidate_calls_ms"].reshape(-1)[24::50] += milliseconds
            _set_medians(arrays, "candidate")

        project.edit("timing.npz", change)
        return project

    return make


def loaded(share: float, *models: str) -> Callable[[Workshop], Project]:
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


def other_provider(workshop: Workshop) -> Project:
    """Both models were declared to run on one provider, and the candidate's sessions came up with another."""
    project = workshop.copy()
    declared = ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def change(header: dict[str, Any], _: Arrays) -> None:
        used = dict.fromkeys(header["providers"], declared)
        header["providers"] = used | ({"candidate": declared[1:]} if "candidate" in used else {})

    for name in ("baseline.npz", "candidate.npz", "timing.npz"):
        project.edit(name, change)
    return project


# --- 42, 43: groups and units -------------------------------------------------------------------------------


def induced_gap(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    assert predictions.lose(predictions.light == "dim", 17) == 17
    return predictions.write()


def same_everywhere(workshop: Workshop) -> Project:
    predictions = _predictions(workshop)
    for level, losses in (("dim", 1), ("normal", 2), ("bright", 1)):
        assert predictions.lose_to_all(predictions.light == level, losses) == losses
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
