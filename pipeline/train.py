# SPDX-License-Identifier: Apache-2.0
"""train: the baseline, trained here or imported."""

from __future__ import annotations

from typing import Any

from pipeline.files import output_dir, write_json
from pipeline.layout import Layout
from pipeline.params import Params

__all__ = ["run"]


def run(layout: Layout, params: Params) -> None:
    """Write the baseline's `weights.safetensors`, `model.onnx`, `model.json` and `compression.json`.

    Raises:
        ModelError: if the factory or the weights are unusable.
        DataError: if the dataset is.
    """
    from pipeline.data.dataset import read_dataset
    from pipeline.models.compression import left_of, write_passes
    from pipeline.models.export import export_onnx
    from pipeline.models.network import Preprocessed, build_network, load_weights, save_weights
    from pipeline.models.recording import record_model
    from pipeline.models.seconds import Stopwatch
    from pipeline.models.training import LabelLoss, make_deterministic, train_network

    dataset = read_dataset(layout.data)
    make_deterministic(params.seed)
    _, channels, height, width = dataset.pixels.shape
    shape = (channels, height, width)
    network = build_network(params.model, shape, len(dataset.classes), layout.root, params.seed)
    module = Preprocessed(network, params.model, dataset.pixel_max)
    done: dict[str, Any]
    stopwatch = Stopwatch()
    if params.model.weights is not None:
        with stopwatch.time("import"):
            where = f"params.yaml model.weights ({params.model.weights})"
            load_weights(network, layout.root / params.model.weights, where)
        done = {"pass": "import", "options": {"weights": params.model.weights}}
    else:
        split = dataset.split("train")
        with stopwatch.time("train"):
            train_network(
                module,
                split.images,
                split.labels,
                params.train,
                pixel_max=dataset.pixel_max,
                seed=params.seed,
                objective=LabelLoss(params.train.label_smoothing, params.model.output),
                label="training the baseline",
                where="params.yaml train",
            )
        done = {"pass": "train", "options": params.train.model_dump()}
    done["options"] = {"factory": params.model.factory, "seed": params.seed, **done["options"]}
    with output_dir(layout.baseline) as folder:
        save_weights(network, folder / "weights.safetensors")
        export_onnx(module, shape, folder / "model.onnx")
        record = record_model(folder / "model.onnx", "baseline", dataset, output=params.model.output)
        write_json(folder / "model.json", record)
        write_passes(folder, record, [done | {"left": left_of(record)}])
    stopwatch.write(layout.seconds("train", "baseline"))
