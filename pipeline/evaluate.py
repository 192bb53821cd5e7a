# SPDX-License-Identifier: Apache-2.0
"""evaluate: baseline and one finalist on the test split, clean and attacked, into evidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.errors import ModelError
from pipeline.files import output_dir, write_json
from pipeline.layout import Layout
from pipeline.params import Params

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnxruntime

    from checks.evidence import Attacks, Contract
    from pipeline.data.dataset import Dataset, Split
    from pipeline.probes.finalist import Finalist

__all__ = ["run"]


def _expect_same_data(finalist: Finalist, dataset: Dataset, layout: Layout) -> None:
    want = {
        "shape": [int(size) for size in dataset.pixels.shape[1:]],
        "pixel_max": dataset.pixel_max,
        "classes": list(dataset.classes),
    }
    for key, value in want.items():
        if finalist.baseline_record[key] != value:
            raise ModelError(
                f"expected {key} {value} of the dataset, got {finalist.baseline_record[key]}",
                where=str(layout.baseline / "model.json"),
                hint="run `dvc repro`",
            )


def _write_examples(folder: Path, split: Split, dataset: Dataset) -> None:
    from pipeline.probes.tables import write_table

    shown = [name for name in dataset.slices if name not in dataset.sensitive]
    header = {
        "schema": "leangate/examples/1",
        "data_sha256": dataset.sha256,
        "test_sha256": dataset.digest("test"),
        "classes": list(dataset.classes),
        "levels": _levels(dataset, shown),
    }
    if dataset.sensitive:
        header["restricted"] = list(dataset.sensitive)
    columns = {f"slice:{name}": split.columns[name] for name in shown}
    write_table(
        folder / "examples.npz",
        header,
        {"ids": split.ids, "units": split.units, "labels": split.labels, **columns},
    )


def _levels(dataset: Dataset, names: Sequence[str]) -> dict[str, list[str]]:
    return {name: sorted(set(dataset.columns[name].tolist())) for name in names}


def _write_restricted(folder: Path, split: Split, dataset: Dataset, digests: dict[str, str]) -> None:
    """Write the sensitive columns apart; the same table whichever candidate is judged."""
    import hashlib

    from checks.evidence import RESTRICTED
    from pipeline.probes.tables import write_table

    images = hashlib.sha256(b"leangate/restricted/1")
    images.update(dataset.pixels.tobytes())
    header = {
        "schema": "leangate/restricted/1",
        **digests,
        "levels": _levels(dataset, dataset.sensitive),
        # Ids and levels can be guessed, images cannot: without them a digest of this table tells nobody
        # whether a guess is right, and with the same images it is the same.
        "salt": images.hexdigest(),
    }
    columns = {f"slice:{name}": split.columns[name] for name in dataset.sensitive}
    write_table(folder / RESTRICTED, header, {"ids": split.ids, **columns})


def _write_scores(
    folder: Path,
    split: Split,
    scores: dict[str, npt.NDArray[np.float32]],
    sessions: dict[str, onnxruntime.InferenceSession],
    finalist: Finalist,
    digests: dict[str, str],
) -> None:
    from pipeline.probes.session import PROVIDERS
    from pipeline.probes.tables import write_table

    for name, sha256 in (("baseline", finalist.baseline_sha256), ("candidate", finalist.candidate_sha256)):
        header = {
            "schema": "leangate/scores/1",
            **digests,
            "model_sha256": sha256,
            "output": finalist.output,
            "providers": {"declared": list(PROVIDERS), name: sessions[name].get_providers()},
        }
        write_table(folder / f"{name}.npz", header, {"ids": split.ids, "scores": scores[name]})


def _write_contract(folder: Path, contract: Contract, params: Params, subject: dict[str, str]) -> None:
    from pipeline.probes.tables import write_table

    effort = {"batch_size": params.evaluate.batch_size, "examples": params.evaluate.contract_examples}
    header = {"schema": "leangate/contract/1", **subject, "effort": effort, "seed": params.seed}
    arrays = {
        f"{model}:{run}": scores
        for model, runs in (("baseline", contract.baseline), ("candidate", contract.candidate))
        for run, scores in runs.items()
    }
    write_table(folder / "contract.npz", header, {"ids": contract.ids, **arrays})


def _write_attacks(folder: Path, attacks: Attacks, params: Params, subject: dict[str, str]) -> None:
    from pipeline.probes.tables import write_table

    header = {
        "schema": "leangate/attacks/1",
        **subject,
        "attacks": list(attacks.names),
        "epsilon": attacks.epsilon,
        "twin_agreement": list(attacks.twin_agreement),
        "effort": params.evaluate.attack.model_dump(),
        "seed": params.seed,
    }
    arrays = {
        "ids": attacks.ids,
        "baseline_correct": attacks.baseline_correct,
        "candidate_correct": attacks.candidate_correct,
        "perturbation": attacks.perturbation,
        "in_range": attacks.in_range,
    }
    write_table(folder / "attacks.npz", header, arrays)


def _write_cost(folder: Path, finalist: Finalist, models: dict[str, str]) -> None:
    cost: dict[str, Any] = {"schema": "leangate/cost/1", **models}
    for name, record in (("baseline", finalist.baseline_record), ("candidate", finalist.candidate_record)):
        cost[name] = {key: record[key] for key in ("bytes", "macs", "parameters")}
    write_json(folder / "cost.json", cost)


def _write_groups(
    folder: Path,
    split: Split,
    scores: dict[str, npt.NDArray[np.float32]],
    classes: tuple[str, ...],
    subject: dict[str, str],
) -> None:
    from importlib.metadata import version

    from pipeline.probes.groups import tabulate_groups
    from pipeline.probes.session import decide

    attributes = tabulate_groups(
        split.labels, decide(scores["baseline"]), decide(scores["candidate"]), split.columns, classes
    )
    table = {
        "schema": "leangate/groups/1",
        **subject,
        "attributes": attributes,
        "fairlearn": version("fairlearn"),
    }
    write_json(folder / "groups.json", table)


def _measure(layout: Layout, params: Params, finalist: Finalist, slot: str) -> None:
    from checks.attempts import expect_attempt, read_attempt
    from pipeline.data.dataset import read_dataset
    from pipeline.probes.attack import Target, run_attacks
    from pipeline.probes.code_digest import code_sha256
    from pipeline.probes.contract import run_contract
    from pipeline.probes.session import open_session, predict
    from pipeline.probes.twin import build_twin

    attempt = read_attempt(layout.attempt(slot))
    dataset = read_dataset(layout.data)
    _expect_same_data(finalist, dataset, layout)
    expect_attempt(
        attempt,
        test_sha256=dataset.digest("test"),
        candidate_sha256=finalist.candidate_sha256,
        where=str(layout.attempt(slot)),
    )
    split = dataset.split("test")
    digests = {"data_sha256": dataset.sha256, "code_sha256": code_sha256()}
    models = {"baseline_sha256": finalist.baseline_sha256, "candidate_sha256": finalist.candidate_sha256}
    files = {"baseline": finalist.baseline, "candidate": finalist.candidate}
    sessions = {name: open_session(path) for name, path in files.items()}
    scores = {
        name: predict(session, split.images, params.evaluate.batch_size) for name, session in sessions.items()
    }
    for name, path in files.items():
        if scores[name].shape[1] != len(dataset.classes):
            raise ModelError(
                f"expected scores of {len(dataset.classes)} classes, got {scores[name].shape[1]}",
                where=str(path),
            )
    targets = {name: Target(sessions[name], build_twin(path)) for name, path in files.items()}
    contract = run_contract(
        (targets["baseline"], finalist.baseline),
        (targets["candidate"], finalist.candidate),
        split,
        examples=params.evaluate.contract_examples,
        seed=params.seed,
        batch_size=params.evaluate.batch_size,
    )
    attacks = run_attacks(
        targets["baseline"],
        targets["candidate"],
        split,
        classes=len(dataset.classes),
        pixel_max=dataset.pixel_max,
        options=params.evaluate.attack,
        seed=params.seed,
        batch_size=params.evaluate.batch_size,
    )
    with output_dir(layout.evidence(slot)) as folder:
        _write_examples(folder, split, dataset)
        if dataset.sensitive:
            _write_restricted(folder, split, dataset, digests)
        _write_scores(folder, split, scores, sessions, finalist, digests)
        _write_contract(folder, contract, params, models | digests)
        _write_attacks(folder, attacks, params, models | digests)
        _write_cost(folder, finalist, models)
        groups_subject = models | {"data_sha256": dataset.sha256}
        _write_groups(folder, split, scores, dataset.classes, groups_subject)


def run(layout: Layout, params: Params, *, slot: str) -> None:
    """Write all evidence but the timing of the finalist in `slot`, or `absent.json` if there is none.

    Raises:
        DataError: if the dataset is unusable.
        EvidenceError: if the attempt was not written down first.
        ModelError: if an ONNX file is unusable or not the one on record.
        ProbeError: if a model cannot be run or attacked.
    """
    from pipeline.probes.finalist import read_finalist, write_absent

    finalist = read_finalist(layout, slot)
    if finalist is None:
        write_absent(layout.evidence(slot), slot)
        return
    _measure(layout, params, finalist, slot)
