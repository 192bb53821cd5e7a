# SPDX-License-Identifier: Apache-2.0
"""quantize with training: the stage reads the baseline's file as teacher, and no code of the user's."""

from __future__ import annotations

import json

import pytest
from ruamel.yaml import YAML

from checks.errors import ParamsError
from pipeline import prepare, prune, quantize, train
from pipeline.compress.static_int8 import integer_share
from pipeline.layout import Layout
from pipeline.models.compression import read_passes
from pipeline.params import load_params

pytestmark = pytest.mark.integration

RECOVER = {
    "epochs": 1, "batch_size": 32, "learning_rate": 0.0001, "weight_decay": 0.0, "label_smoothing": 0.0,
    "max_shift": 1, "distill": {},
}  # fmt: skip
RECIPES = {
    "int8": {"method": "static"},
    "trained": {"method": "trained", "recover": RECOVER},
    "rescued": {"method": "rescue", "max_accuracy_drop": 0.1, "max_class_drop": 0.5, "recover": RECOVER},
}

WRONG = {"floats": ".keep_float", "large": ".recover.batch_size"}


def test_int8_is_trained_from_files_alone(project):
    yaml = YAML(typ="safe", pure=True)
    values = yaml.load((project / "params.yaml").read_text())
    del values["search"]  # it names precisions that this file has not
    values["train"]["epochs"] = 4
    values["prune"] = {"variants": ["dense"], "recipes": {"dense": []}}
    large = {"method": "trained", "recover": RECOVER | {"batch_size": 60_000}}
    wrong = {"floats": {"method": "static", "keep_float": 100}, "large": large}
    values["quantize"] = {"precisions": list(RECIPES), "recipes": RECIPES | wrong}
    (project / "params.yaml").write_text(json.dumps(values))
    layout, params = Layout(project), load_params(project / "params.yaml")
    prepare.run(layout, params)
    train.run(layout, params)
    prune.run(layout, params, variant="dense")
    for precision, where in WRONG.items():
        with pytest.raises(ParamsError) as caught:
            quantize.run(layout, params, variant="dense", precision=precision)
        assert caught.value.where == f"params.yaml quantize.recipes.{precision}{where}"
        assert not layout.candidate(f"dense-{precision}").exists()
    (project / "examples/digits/net.py").unlink()
    records, bytes_of, done = {}, {}, {}
    for precision in RECIPES:
        quantize.run(layout, params, variant="dense", precision=precision)
        folder = layout.candidate(f"dense-{precision}")
        records[precision] = json.loads((folder / "model.json").read_text())
        done[precision] = read_passes(folder)[-1]
        bytes_of[precision] = (folder / "model.onnx").read_bytes()
        integer, total = integer_share(folder / "model.onnx")
        assert integer == total > 0
    assert bytes_of["rescued"] == bytes_of["int8"] != bytes_of["trained"]
    # Of the static file before it, but for the scale of pixels, which stays an operation of its own.
    assert records["trained"]["bytes"] == pytest.approx(records["int8"]["bytes"], abs=100)
    assert done["trained"]["options"]["recover"]["epochs"] == 1
    untrained = done["trained"]["untrained"]["validation_loss"]
    assert untrained == pytest.approx(records["int8"]["validation_loss"], rel=0.1)
    assert records["trained"]["validation_loss"] < 1.5 * records["int8"]["validation_loss"] + 0.1
    assert [rung["outcome"] for rung in done["rescued"]["rungs"]] == ["passed"]
    quantize.run(layout, params, variant="dense", precision="trained")
    assert (layout.candidate("dense-trained") / "model.onnx").read_bytes() == bytes_of["trained"]
