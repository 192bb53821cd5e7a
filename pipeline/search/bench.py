# SPDX-License-Identifier: Apache-2.0
"""Builds a drawn recipe and measures it, on the validation split alone.

What is measured is the file that `dvc repro` makes of the same recipe, byte for byte: passes get the seeds
that `prune` gives them, and the precision is the stage `quantize` itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from checks.canonical import sha256_file
from checks.errors import CompressionError, InputError, ModelError, ParamsError
from pipeline.compress.configs import Recover
from pipeline.compress.precision_configs import QuantizeRecipe
from pipeline.layout import Layout
from pipeline.params import Attack, Params, Time
from pipeline.search.space import Drawn

if TYPE_CHECKING:
    from torch import nn

    from pipeline.compress.context import Context
    from pipeline.data.dataset import Dataset, Split

__all__ = ["Attempt", "Bench", "FileBench", "Measured", "epochs_inside", "measure_scores"]

_VARIANT = "trial"
_BATCH = 256
_ROUNDS = {"sessions": 1, "rounds": 15, "calls": 5, "warmup": 10}


@dataclass(frozen=True)
class Measured:
    """What one candidate file is.

    Attributes:
        values: Objective to its value.
        sha256: Of the ONNX file.
        epochs: What the rung trained, in epochs of the baseline: by the share of its multiply-accumulates.
    """

    values: Mapping[str, float]
    sha256: str
    epochs: float


class Attempt(Protocol):
    """One recipe being tried."""

    def costs(self) -> Mapping[str, float]:
        """Return what is known before training: of `bytes`, `macs`, `latency` those that are needed."""
        ...

    def measure(self, rung: int) -> Measured:
        """Train up to the end of a rung, counted from 0, and measure the file at its precision."""
        ...


class Bench(Protocol):
    """Where recipes are tried.

    Raises:
        CompressionError: if the recipe cannot be built.
    """

    def begin(self, drawn: Drawn) -> Attempt:
        """Apply the passes that shrink."""
        ...


@dataclass(frozen=True)
class _TrialLayout(Layout):
    """The project's folders, but for what a trial makes."""

    scratch: Path = Path()

    def shrunk(self, variant: str) -> Path:
        return self.scratch / "shrunk" / variant

    def candidate(self, name: str) -> Path:
        return self.scratch / "candidates" / name

    def seconds(self, stage: str, name: str) -> Path:
        return self.scratch / "seconds" / f"{stage}-{name}.json"


def _worst(correct: npt.NDArray[np.bool_], split: Split, least: int) -> float:
    shares = []
    for column in (split.labels, *split.columns.values()):
        for level in np.unique(column):
            rows = column == level
            if int(rows.sum()) >= least:
                shares.append(float(correct[rows].mean()))
    if not shares:
        raise ParamsError(
            f"expected a class or slice with at least {least} examples in the validation split, got none",
            where="params.yaml search.min_slice_examples",
            hint="ask for fewer, or leave out the objective worst_slice_accuracy",
        )
    return min(shares)


def measure_scores(
    scores: npt.NDArray[np.float32], split: Split, *, output: str, least: int
) -> dict[str, float]:
    """Return what answers tell: `accuracy`, `loss` in nats, and `worst_slice_accuracy`.

    Args:
        scores: `(N, K)`, logits or probabilities.
        split: The `N` examples.
        output: `logits` or `probabilities`.
        least: Examples of a class or slice that counts.

    Raises:
        ModelError: if a score is not finite.
        ParamsError: if no class or slice is large enough.
    """
    if not np.isfinite(scores).all():
        raise ModelError("expected finite scores on the validation split, got NaN or infinity")
    wide = scores.astype(np.float64)
    if output == "probabilities":
        logs = np.log(np.maximum(wide, np.finfo(np.float32).tiny))
    else:
        shifted = wide - wide.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    correct = wide.argmax(axis=1) == split.labels
    return {
        "accuracy": float(correct.mean()),
        "loss": float(-logs[np.arange(len(correct)), split.labels].mean()),
        "worst_slice_accuracy": _worst(correct, split, least),
    }


def _without_test(dataset: Dataset) -> Dataset:
    """The search cannot read what it does not have."""
    rows = dataset.columns["split"] != "test"
    columns = {name: values[rows] for name, values in dataset.columns.items()}
    return replace(dataset, columns=columns, pixels=dataset.pixels[rows])


def epochs_inside(precision: QuantizeRecipe, share: float = 1.0) -> int:
    """Return the epochs that a precision trains by itself, given a share of those it names; whole ones."""
    training: Recover | None = getattr(precision, "recover", None)
    if training is None or training.epochs == 0:
        return 0
    return max(1, round(share * training.epochs))


@contextlib.contextmanager
def _own_fault(where: str) -> Iterator[None]:
    """What does not fit one recipe's network may fit the next one's: it ends the trial, not the search."""
    try:
        yield
    except (CompressionError, InputError) as error:
        raise CompressionError(error.what, where=where, hint=error.hint) from error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Two processes that time at once would time each other."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class FileBench:
    """Tries recipes on the prepared data and the baseline of a project."""

    def __init__(self, layout: Layout, params: Params, scratch: Path) -> None:
        """Open data and baseline.

        Args:
            layout: The project.
            params: Its parameters.
            scratch: An existing folder that other processes of this search share.

        Raises:
            DataError: if the prepared data are unusable.
            ModelError: if the baseline is.
        """
        from pipeline.data.dataset import read_dataset
        from pipeline.models.training import make_deterministic
        from pipeline.prune import open_context

        make_deterministic(params.seed)
        self.layout, self.params, self._scratch = layout, params, scratch
        self.dataset = _without_test(read_dataset(layout.data))
        self.context: Context = open_context(layout, params, self.dataset)
        self.split = self.dataset.split("validation")

    def begin(self, drawn: Drawn) -> _FileAttempt:
        """Apply the passes that shrink; see `Bench`."""
        from pipeline.compress.recipe import function_of

        module: nn.Module = self.context.teacher
        for index, entry in enumerate(drawn.shrink):
            own = replace(self.context, seed=self.context.seed + index)
            with _own_fault(entry.method):
                module = function_of(entry.method)(module, entry.config, own).module
        return _FileAttempt(self, drawn, module)

    def measure_file(self, path: Path, known: Mapping[str, float]) -> dict[str, float]:
        """Return every objective of a candidate's file that is asked for; `known` are not measured again."""
        from pipeline.probes.session import open_session, predict

        wanted = self.params.search.objectives
        scores = predict(open_session(path), self.split.images, _BATCH)
        # What --write and the picture need is measured whether it is an objective or not.
        least = self.params.search.min_slice_examples if "worst_slice_accuracy" in wanted else 0
        found = measure_scores(scores, self.split, output=self.params.model.output, least=least)
        found |= self.measure_costs(path, known)
        if "robust_accuracy" in wanted:
            found["robust_accuracy"] = self._robustness(path)
        return {name: found[name] for name in sorted({*wanted, "accuracy", "bytes"})}

    def measure_costs(self, path: Path, known: Mapping[str, float]) -> dict[str, float]:
        """Return what a candidate's file costs."""
        from pipeline.models.cost import measure_cost

        cost = measure_cost(path)
        found = {"bytes": float(cost.bytes), "macs": float(cost.macs)}
        if "latency" in self.params.search.objectives or self.params.search.limits.latency is not None:
            found["latency"] = known["latency"] if "latency" in known else self._latency(path)
        return found

    def _latency(self, path: Path) -> float:
        from pipeline.probes.latency import measure_latency

        with _alone(self._scratch / "latency.lock"):
            timing = measure_latency(
                self.layout.baseline / "model.onnx",
                path,
                shape=self.context.shape,
                pixel_max=self.dataset.pixel_max,
                options=Time(batch_sizes=(self.params.search.batch_size,), **_ROUNDS),
                seed=self.params.seed,
            )
        return float(np.median(timing.candidate_ms / timing.baseline_ms))

    def _robustness(self, path: Path) -> float:
        from pipeline.probes.attack import Target, measure_robustness
        from pipeline.probes.session import open_session
        from pipeline.probes.twin import build_twin

        effort = self.params.search.robustness
        return measure_robustness(
            Target(open_session(path), build_twin(path)),
            self.split,
            classes=len(self.dataset.classes),
            pixel_max=self.dataset.pixel_max,
            options=Attack(
                epsilon=effort.epsilon,
                examples=effort.examples,
                pgd_steps=effort.steps,
                pgd_restarts=1,
                square_queries=1,
            ),
            seed=self.params.seed,
            batch_size=_BATCH,
        )

    @contextlib.contextmanager
    def candidate(self, drawn: Drawn, module: nn.Module, share: float) -> Iterator[Path]:
        """Yield the file that the stages make of the module at the recipe's precision.

        Args:
            drawn: The recipe.
            module: What its passes made so far.
            share: Of its own training that a precision with one spends.
        """
        from pipeline import prune, quantize

        params = self._params(drawn, share)
        with tempfile.TemporaryDirectory(prefix=".trial-", dir=self._scratch) as folder:
            layout = _TrialLayout(self.layout.root, Path(folder))
            with _own_fault(drawn.precision):
                if drawn.shrink:
                    self._write_shrunk(layout.shrunk(_VARIANT), drawn, module)
                else:
                    prune.run(layout, params, variant=_VARIANT)
                quantize.run(layout, params, variant=_VARIANT, precision=drawn.precision)
            yield layout.candidate(f"{_VARIANT}-{drawn.precision}") / "model.onnx"

    def _write_shrunk(self, folder: Path, drawn: Drawn, module: nn.Module) -> None:
        from pipeline.files import write_json
        from pipeline.models.compression import write_passes
        from pipeline.models.export import export_onnx
        from pipeline.models.network import save_weights
        from pipeline.models.recording import record_model

        folder.mkdir(parents=True)
        save_weights(module, folder / "weights.safetensors")
        export_onnx(module, self.context.shape, folder / "model.onnx")
        record = record_model(folder / "model.onnx", _VARIANT, self.dataset, output=self.params.model.output)
        write_json(folder / "model.json", record)
        write_passes(folder, record, [{"pass": entry.method} for entry in drawn.passes])

    def _params(self, drawn: Drawn, share: float) -> Params:
        prune, quantize = self.params.prune, self.params.quantize
        precision = quantize.recipes[drawn.precision]
        training = getattr(precision, "recover", None)
        if training is not None:
            epochs = epochs_inside(precision, share)
            precision = precision.model_copy(
                update={"recover": training.model_copy(update={"epochs": epochs})}
            )
        return self.params.model_copy(
            update={
                "prune": prune.model_copy(update={"recipes": {**prune.recipes, _VARIANT: drawn.passes}}),
                "quantize": quantize.model_copy(
                    update={"recipes": {**quantize.recipes, drawn.precision: precision}}
                ),
            }
        )


class _FileAttempt:
    def __init__(self, bench: FileBench, drawn: Drawn, module: nn.Module) -> None:
        self._bench, self._drawn, self._module = bench, drawn, module
        self._trained = 0
        self._known: dict[str, float] = {}

    @cached_property
    def _macs_share(self) -> float:
        from pipeline.compress.macs import count_macs

        image, _ = self._bench.context.examples(1)
        before = count_macs(self._bench.context.teacher, image)
        return count_macs(self._module, image) / max(1, before)

    def costs(self) -> Mapping[str, float]:
        precision = self._bench.params.quantize.recipes[self._drawn.precision]
        if epochs_inside(precision):
            return {}  # only training it would tell
        with self._bench.candidate(self._drawn, self._module, 0) as path:
            self._known = self._bench.measure_costs(path, {})
        return self._known

    def _train(self, rung: int) -> None:
        from pipeline.compress.recipe import function_of

        for config in self._drawn.recover[self._trained : rung + 1]:
            if config is not None:
                done = sum(entry is not None for entry in self._drawn.recover[: self._trained])
                seed = self._bench.context.seed + len(self._drawn.shrink) + done
                own = replace(self._bench.context, seed=seed)
                with _own_fault("recover"):
                    self._module = function_of("recover")(self._module, config, own).module
            self._trained += 1

    def _epochs(self, rung: int) -> float:
        precision = self._bench.params.quantize.recipes[self._drawn.precision]
        own = epochs_inside(precision, self._bench.params.search.rungs[rung])
        return (self._drawn.epochs[rung] + own) * self._macs_share

    def measure(self, rung: int) -> Measured:
        self._train(rung)
        share = self._bench.params.search.rungs[rung]
        with self._bench.candidate(self._drawn, self._module, share) as path:
            values = self._bench.measure_file(path, self._known)
            self._known = {name: values[name] for name in ("latency",) if name in values}
            return Measured(values, sha256_file(path), self._epochs(rung))
