# SPDX-License-Identifier: Apache-2.0
"""Sessions: what is opened, what is refused and how it is said, and what a prediction is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from checks.errors import ModelError, ProbeError
from pipeline.probes.session import (
    MAX_MODEL_BYTES,
    UNDECIDED,
    create_session,
    decide,
    open_session,
    predict,
)

ROOT = Path(__file__).parents[4]
FLOAT, DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE
IMAGES = np.arange(5 * 64, dtype=np.float32).reshape(5, 1, 8, 8) / 20


def _value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def test_predict_returns_the_files_own_scores_whatever_the_batch_size(linear_onnx):
    weight = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
    session = open_session(linear_onnx("m.onnx", weight, [1, 2, 3]))
    want = IMAGES.reshape(5, 64).astype(np.float64) @ weight + [1, 2, 3]
    for batch_size in (1, 2, 5, 100):
        scores = predict(session, IMAGES, batch_size)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, want, rtol=1e-5)


def test_predict_lets_nan_pass(linear_onnx):
    session = open_session(linear_onnx("m.onnx", np.full((64, 2), np.nan), [0, 0]))
    assert np.isnan(predict(session, IMAGES, 2)).all()


@pytest.mark.parametrize(
    ("images", "batch_size"),
    [
        (IMAGES[:0], 2),
        (IMAGES[0], 2),
        (IMAGES.astype(np.float64), 2),
        (IMAGES[:, :, :4], 2),
        (np.concatenate([IMAGES, IMAGES], axis=1), 2),
        (IMAGES, 0),
    ],
    ids=["none", "3-D", "float64", "too-low", "two-channels", "no-batch"],
)
def test_predict_refuses_images_that_do_not_fit(linear_onnx, images, batch_size):
    session = open_session(linear_onnx("m.onnx", np.zeros((64, 2)), [0, 0]))
    with pytest.raises(ProbeError, match="expected"):
        predict(session, images, batch_size)


def test_predict_refuses_scores_of_fewer_rows_than_images(write_onnx):
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("Slice", ["flat", "zero", "one", "zero"], ["scores"]),
    ]
    path = write_onnx("m.onnx", nodes, {"zero": np.array([0]), "one": np.array([1])}, scores=("rows", 64))
    with pytest.raises(ProbeError, match=r"scores \(5, classes\)"):
        predict(open_session(path), IMAGES, 5)


def test_decide_takes_the_largest_score_and_nothing_where_any_is_not_finite():
    scores = np.array([[0, 2, 1], [np.nan, 5, 0], [0, np.inf, 0], [3, 1, 2], [0, -np.inf, 1]], np.float32)
    assert decide(scores).tolist() == [1, UNDECIDED, UNDECIDED, 0, UNDECIDED]


SIGNATURES = {
    "two inputs": ({"inputs": [_value("image", ("b", 1, 8, 8)), _value("other", ("b", 1, 8, 8))]}, "other"),
    "three dimensions": ({"inputs": [_value("image", ("b", 8, 8))]}, "image"),
    "double": (
        {
            "inputs": [_value("image", ("b", 1, 8, 8), DOUBLE)],
            "outputs": [_value("scores", ("b", 64), DOUBLE)],
        },
        "double",
    ),
    "two outputs": ({"outputs": [_value("scores", ("b", 64)), _value("scores2", ("b", 64))]}, "scores2"),
    "fixed batch": ({"inputs": [_value("image", (1, 1, 8, 8))]}, "dynamic batch"),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_other_signatures_are_refused_and_named(write_onnx, name):
    options, named = SIGNATURES[name]
    nodes = [
        helper.make_node("Flatten", ["image"], ["scores"], axis=1),
        helper.make_node("Flatten", ["image"], ["scores2"], axis=1),
    ]
    path = write_onnx("m.onnx", nodes[: 2 if name == "two outputs" else 1], **options)
    with pytest.raises(ModelError, match=named) as caught:
        open_session(path)
    assert str(path) in str(caught.value)


def test_output_of_another_rank_is_refused(write_onnx):
    path = write_onnx(
        "m.onnx",
        [helper.make_node("Identity", ["image"], ["scores"])],
        outputs=[_value("scores", ("b", 1, 8, 8))],
    )
    with pytest.raises(ModelError, match="scores"):
        open_session(path)


def test_missing_empty_and_foreign_files_are_refused(tmp_path):
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "noise.onnx").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "folder.onnx").mkdir()
    for name in ("missing.onnx", "empty.onnx", "text.onnx", "noise.onnx", "folder.onnx"):
        with pytest.raises(ModelError) as caught:
            open_session(tmp_path / name)
        assert name in str(caught.value)


def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path, linear_onnx):
    whole = linear_onnx("whole.onnx", np.ones((64, 10)), np.zeros(10)).read_bytes()
    path = tmp_path / "cut.onnx"
    for share in (0.01, 0.2, 0.5, 0.9, 0.99, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ModelError):
            open_session(path)


def test_weights_in_another_file_are_refused(tmp_path, linear_onnx):
    model = onnx.load(linear_onnx("m.onnx", np.ones((64, 100)), np.zeros(100)))
    onnx.save(model, tmp_path / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    with pytest.raises(ModelError, match="weight"):
        open_session(tmp_path / "e.onnx")


def test_weights_of_a_constant_in_another_file_are_refused(tmp_path, write_onnx):
    tensor = helper.make_tensor("inside", FLOAT, [64, 2], np.zeros(128))
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("Constant", [], ["weight"], value=tensor),
        helper.make_node("MatMul", ["flat", "weight"], ["scores"]),
    ]
    model = onnx.load(write_onnx("m.onnx", nodes))
    assert open_session(tmp_path / "m.onnx")
    moved = model.graph.node[1].attribute[0].t
    moved.data_location = onnx.TensorProto.EXTERNAL
    moved.external_data.add(key="location", value="../../etc/hostname")
    (tmp_path / "e.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="inside"):
        open_session(tmp_path / "e.onnx")


def test_a_file_over_two_gibibytes_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(MAX_MODEL_BYTES + 1)
    with pytest.raises(ModelError, match="at most"):
        open_session(path)


def test_only_the_cpu_and_the_asked_threads_are_used(linear_onnx):
    session = open_session(linear_onnx("m.onnx", np.zeros((64, 2)), [0, 0]), threads=2)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == 2


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "all"])
def test_a_graph_is_rewritten_as_far_as_asked(linear_onnx, level):
    path = linear_onnx("m.onnx", np.ones((64, 2)), [0, 0])
    session = create_session(path, optimization=level)
    name = "ORT_DISABLE_ALL" if level == "disabled" else f"ORT_ENABLE_{level.upper()}"
    assert session.get_session_options().graph_optimization_level.name == name
    assert create_session(path).get_session_options().graph_optimization_level.name == "ORT_ENABLE_ALL"
    np.testing.assert_allclose(predict(session, IMAGES, 5)[:, 0], IMAGES.sum(axis=(1, 2, 3)), rtol=1e-5)


def test_importing_is_light_and_running_leaves_nothing_in_the_users_home(tmp_path, linear_onnx):
    path = linear_onnx("m.onnx", np.zeros((64, 2)), [0, 0])
    home = tmp_path / "home"
    home.mkdir()
    code = (
        "import sys; import pipeline.probes.session as s\n"
        "assert not {'onnxruntime', 'onnx', 'torch'} & set(sys.modules)\n"
        f"from pathlib import Path; s.open_session(Path({str(path)!r}))\n"
    )
    # Without these, the runtime would take this for a build server and be quiet by itself.
    environment = {
        key: value for key, value in os.environ.items() if key not in ("CI", "ORT_DISABLE_TELEMETRY")
    }
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment.pop("XDG_CACHE_HOME", None)
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert list(home.rglob("*")) == []
