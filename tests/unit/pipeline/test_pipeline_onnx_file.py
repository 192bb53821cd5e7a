# SPDX-License-Identifier: Apache-2.0
"""Compact files compute the same in fewer bytes."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pipeline.compress.calibration import find_ranges
from pipeline.compress.graphs import read_graph
from pipeline.compress.precision_configs import StaticInt8
from pipeline.compress.qdq import to_qdq
from pipeline.models.cost import measure_cost
from pipeline.models.onnx_file import compact_model, save_onnx
from tests.onnx_nets import answers, images_of, residual_net


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    graph = read_graph(residual_net(folder / "float.onnx"))
    model = to_qdq(graph, find_ranges(graph, images_of(40), StaticInt8())).model
    save_onnx(model, folder / "plain.onnx")
    save_onnx(compact_model(model), folder / "compact.onnx")
    return folder / "plain.onnx", folder / "compact.onnx", model


def test_fewer_bytes_and_the_very_same_answers(files):
    plain, compact, _ = files
    assert compact.stat().st_size < 0.75 * plain.stat().st_size
    images = images_of(40)
    for level in ("disabled", "all"):
        np.testing.assert_array_equal(answers(plain, images, level), answers(compact, images, level))
    assert measure_cost(plain).parameters == measure_cost(compact).parameters
    assert measure_cost(plain).macs == measure_cost(compact).macs


def test_names_are_short_and_no_constant_is_stored_twice_or_unread(files):
    model = onnx.load(files[1])
    assert not any(node.name for node in model.graph.node)
    names = {name for node in model.graph.node for name in node.output} | {
        tensor.name for tensor in model.graph.initializer
    }
    assert max(map(len, names - {"scores"})) <= 2
    scales = [
        (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
        for tensor in model.graph.initializer
        if not any(tensor.name == node.input[0] for node in model.graph.node)
    ]
    assert len(scales) == len(set(scales))
    assert [entry.name for entry in [*model.graph.input, *model.graph.output]] == ["image", "scores"]


def test_the_model_given_is_not_changed_and_compacting_again_changes_nothing(files):
    model = files[2]
    before = model.SerializeToString(deterministic=True)
    once = compact_model(model)
    assert model.SerializeToString(deterministic=True) == before
    assert compact_model(once).SerializeToString(deterministic=True) == once.SerializeToString(
        deterministic=True
    )


def test_equal_weights_of_two_layers_stay_two(tmp_path):
    path = residual_net(tmp_path / "m.onnx")
    graph = read_graph(path)
    graph.set_constant("two.weight", graph.constant("one.weight"))
    save_onnx(compact_model(graph.model), tmp_path / "compact.onnx")
    graph.save(path)
    assert measure_cost(tmp_path / "compact.onnx").parameters == measure_cost(path).parameters


def test_graphs_within_nodes_are_left_alone():
    inner = helper.make_graph(
        [helper.make_node("Identity", ["outside_value"], ["y"])],
        "inner",
        [],
        [helper.make_tensor_value_info("y", 1, None)],
    )
    node = helper.make_node("If", ["condition"], ["scores"], then_branch=inner, else_branch=inner)
    constant = numpy_helper.from_array(np.ones(3, np.float32), "outside_value")
    graph = helper.make_graph([node], "g", [], [], [constant])
    model = helper.make_model(graph)
    assert compact_model(model) == model
