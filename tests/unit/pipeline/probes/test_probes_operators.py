# SPDX-License-Identifier: Apache-2.0
"""Every operator the twin knows, in each of its forms, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from checks.errors import ProbeError
from pipeline.probes.operators import OPERATORS
from pipeline.probes.session import create_session
from pipeline.probes.twin import build_twin

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(3, 2, 7, 6)).astype(np.float32)
TENSOR = onnx.TensorProto


def _weights(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def _ints(*values):
    return np.array(values, np.int64)


# Operator, further inputs (None is an input left out), attributes, opset.
FORMS = [
    ("Abs", [], {}, 20),
    ("Add", [_weights(2, 1, 1)], {}, 20),
    ("AveragePool", [], {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 1, 1, 1]}, 20),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 20),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0]}, 20),
    ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [0, 1, 2, 0], "count_include_pad": 1}, 20),
    ("AveragePool", [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, 20),
    ("AveragePool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}, 20),
    ("BatchNormalization", [_weights(2), _weights(2), _weights(2), _weights(2) ** 2], {"epsilon": 1e-3}, 20),
    ("Cast", [], {"to": TENSOR.INT32}, 20),
    ("Cast", [], {"to": TENSOR.DOUBLE}, 20),
    ("Clip", [np.float32(-0.5), np.float32(0.5)], {}, 20),
    ("Clip", [None, np.float32(0.5)], {}, 20),
    ("Clip", [np.float32(0)], {}, 20),
    ("Clip", [], {}, 20),
    ("Concat", [_weights(3, 1, 7, 6)], {"axis": -3}, 20),
    ("Conv", [_weights(4, 2, 3, 3), _weights(4)], {"pads": [1, 1, 1, 1]}, 20),
    ("Conv", [_weights(4, 1, 3, 2)], {"group": 2, "strides": [2, 1], "pads": [0, 1, 2, 0]}, 20),
    ("Conv", [_weights(4, 2, 2, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 20),
    ("Conv", [_weights(4, 2, 2, 2)], {"auto_pad": "SAME_LOWER", "strides": [1, 3]}, 20),
    ("Conv", [_weights(4, 2, 2, 2)], {"auto_pad": "VALID", "dilations": [3, 2]}, 20),
    ("DequantizeLinear", [np.float32(0.1)], {}, 20),
    ("Div", [_weights(1, 2, 7, 6)], {}, 20),
    ("Dropout", [], {}, 20),
    ("Elu", [], {"alpha": 0.7}, 20),
    ("Erf", [], {}, 20),
    ("Exp", [], {}, 20),
    ("Flatten", [], {"axis": 2}, 20),
    ("Flatten", [], {"axis": 0}, 20),
    ("Flatten", [], {"axis": -1}, 20),
    ("Gather", [_ints(1, -1, 0)], {"axis": 1}, 20),
    ("Gather", [np.array(-2)], {"axis": -1}, 20),
    ("Gather", [np.array([[0, 3], [5, -6]])], {"axis": 3}, 20),
    ("Gelu", [], {}, 20),
    ("Gelu", [], {"approximate": "tanh"}, 20),
    ("GlobalAveragePool", [], {}, 20),
    ("GlobalMaxPool", [], {}, 20),
    ("HardSigmoid", [], {"alpha": 0.3, "beta": 0.4}, 20),
    ("HardSigmoid", [], {}, 20),
    ("HardSwish", [], {}, 20),
    ("Identity", [], {}, 20),
    ("LayerNormalization", [_weights(6), _weights(6)], {"epsilon": 1e-3}, 20),
    ("LayerNormalization", [_weights(7, 6)], {"axis": -2}, 20),
    ("LayerNormalization", [_weights(2, 7, 6)], {"axis": 1}, 20),
    ("LeakyRelu", [], {"alpha": 0.3}, 20),
    ("LogSoftmax", [], {"axis": 1}, 20),
    ("MatMul", [_weights(6, 5)], {}, 20),
    ("MatMul", [_weights(2, 6, 5)], {}, 20),
    ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}, 20),
    ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}, 20),
    ("MaxPool", [], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, 20),
    ("MaxPool", [], {"kernel_shape": [2, 3], "dilations": [2, 1]}, 20),
    ("MaxPool", [], {"kernel_shape": [2, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, 20),
    ("Mul", [_weights(2, 1, 1)], {}, 20),
    ("Neg", [], {}, 20),
    ("Pad", [_ints(0, 0, 1, 2, 0, 1, 0, 3), np.float32(1.5)], {}, 20),
    ("Pad", [_ints(1, 2, 0, 1), None, _ints(3, -2)], {}, 20),
    ("Pad", [_ints(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "reflect"}, 20),
    ("Pad", [_ints(0, 0, 1, 2, 0, 0, 2, 1)], {"mode": "edge"}, 20),
    ("Pad", [_ints(0, 0, -1, 2, 0, 0, -2, 0)], {}, 13),
    ("Pow", [np.float32(2)], {}, 20),
    ("QuantizeLinear", [np.float32(0.02), np.uint8(100)], {}, 20),
    ("QuantizeLinear", [np.float32(0.01), np.int8(-5)], {}, 13),
    ("QuantizeLinear", [np.float32(0.01)], {}, 13),
    ("QuantizeLinear", [np.array([0.01, 0.1], np.float32), np.array([3, -4], np.int8)], {"axis": 1}, 20),
    ("QuantizeLinear", [np.float32(0.001), np.uint16(30000)], {}, 21),
    ("QuantizeLinear", [np.float32(0.001)], {"output_dtype": TENSOR.INT16}, 21),
    ("ReduceMax", [_ints(1)], {}, 18),
    ("ReduceMean", [_ints(2, 3)], {"keepdims": 0}, 18),
    ("ReduceMean", [], {"axes": [-1, 2]}, 13),
    ("ReduceMean", [], {}, 18),
    ("ReduceMean", [], {"noop_with_empty_axes": 1}, 18),
    ("ReduceSum", [_ints(-1)], {}, 13),
    ("Relu", [], {}, 20),
    ("Reshape", [_ints(0, -1, 3)], {}, 20),
    ("Reshape", [_ints(-1, 6)], {"allowzero": 1}, 20),
    ("Shape", [], {}, 13),
    ("Shape", [], {"start": 1, "end": -1}, 20),
    ("Sigmoid", [], {}, 20),
    ("Slice", [_ints(1, -5), _ints(1000, 6), _ints(2, -1), _ints(2, 1)], {}, 20),
    ("Slice", [_ints(-1), _ints(-(2**62)), _ints(3), _ints(-2)], {}, 20),
    ("Slice", [_ints(0, 1), _ints(2, 2)], {}, 20),
    ("Softmax", [], {"axis": 1}, 20),
    ("Softmax", [], {}, 13),
    ("Softplus", [], {}, 20),
    ("Sqrt", [], {}, 20),
    ("Sub", [_weights(1, 2, 1, 6)], {}, 20),
    ("Tanh", [], {}, 20),
    ("Transpose", [], {"perm": [0, 2, 3, 1]}, 20),
    ("Transpose", [], {}, 20),
    ("Unsqueeze", [_ints(0, -1)], {}, 20),
]

# Operators whose input is no image, as graphs: nodes, weights.
GRAPHS = {
    "Div of integers": (
        [
            helper.make_node("Cast", ["image"], ["whole"], to=TENSOR.INT64),
            helper.make_node("Div", ["whole", "w"], ["scores"]),
        ],
        {"w": np.array(2)},
    ),
    "Gemm": (
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], ["scores"], alpha=0.5, beta=2.0, transB=1),
        ],
        {"w": _weights(5, 84), "b": _weights(5)},
    ),
    "Gemm transposed, without bias": (
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("Transpose", ["flat"], ["turned"]),
            helper.make_node("Gemm", ["turned", "w"], ["scores"], transA=1),
        ],
        {"w": _weights(84, 5)},
    ),
    "Squeeze": (
        [
            helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
            helper.make_node("Squeeze", ["mean", "w"], ["scores"]),
        ],
        {"w": _ints(-1, 2)},
    ),
    "Squeeze of all": (
        [
            helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
            helper.make_node("Squeeze", ["mean"], ["scores"]),
        ],
        {},
    ),
    "Constants": (
        [
            helper.make_node("Constant", [], ["a"], value_float=2.5),
            helper.make_node("Constant", [], ["b"], value_ints=[0, -1]),
            helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            helper.make_node("Mul", ["image", "a"], ["x"]),
            helper.make_node("Sub", ["x", "c"], ["y"]),
            helper.make_node("Reshape", ["y", "b"], ["scores"]),
        ],
        {},
    ),
    "Reshape to the batch it came with": (
        [
            helper.make_node("Shape", ["image"], ["shape"]),
            helper.make_node("Constant", [], ["zero"], value_int=0),
            helper.make_node("Gather", ["shape", "zero"], ["batch"]),
            helper.make_node("Unsqueeze", ["batch", "axis"], ["batches"]),
            helper.make_node("Concat", ["batches", "rest"], ["wanted"], axis=0),
            helper.make_node("Reshape", ["image", "wanted"], ["scores"]),
        ],
        {"axis": _ints(0), "rest": _ints(-1)},
    ),
    "Weights of eight bits, one scale a channel": (
        [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["weight"], axis=0),
            helper.make_node("DequantizeLinear", ["b", "bs"], ["bias"], axis=0),
            helper.make_node("Conv", ["image", "weight", "bias"], ["scores"]),
        ],
        {
            "w": np.random.default_rng(2).integers(-128, 128, (4, 2, 3, 3)).astype(np.int8),
            "s": np.array([0.01, 0.1, 0.02, 0.2], np.float32),
            "z": np.array([0, 3, -5, 0], np.int8),
            "b": np.array([100, -200, 300, -(2**24) - 1], np.int32),
            "bs": np.array([0.01, 0.02, 0.03, 1e-7], np.float32),
        },
    ),
    "Products of codes": (
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("QuantizeLinear", ["flat", "s", "zero"], ["codes"]),
            helper.make_node("MatMulInteger", ["codes", "w", "zero", "z"], ["product"]),
            helper.make_node("Cast", ["product"], ["scores"], to=TENSOR.FLOAT),
        ],
        {
            "s": np.float32(0.01),
            "zero": np.uint8(100),
            "w": np.random.default_rng(2).integers(-128, 128, (84, 5)).astype(np.int8),
            "z": np.array([0, 3, -5, 0, 1], np.int8),
        },
    ),
    "Products of codes, without zero points": (
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("QuantizeLinear", ["flat", "s"], ["codes"]),
            helper.make_node("MatMulInteger", ["codes", "w"], ["product"]),
            helper.make_node("Cast", ["product"], ["scores"], to=TENSOR.FLOAT),
        ],
        {
            "w": np.random.default_rng(2).integers(-128, 128, (84, 5)).astype(np.int8),
            "s": np.float32(0.01),
        },
    ),
    "Codes and back, one scale a channel": (
        [
            helper.make_node("QuantizeLinear", ["image", "s", "z"], ["codes"], axis=1),
            helper.make_node("DequantizeLinear", ["codes", "s", "z"], ["scores"], axis=1),
        ],
        {"s": np.array([0.01, 0.1], np.float32), "z": np.array([100, 128], np.uint8)},
    ),
}


def _answers(path):
    """What ONNX Runtime and the twin make of the images."""
    import torch

    with torch.no_grad():
        return create_session(path).run(None, {"image": IMAGES})[0], build_twin(path)(
            torch.from_numpy(IMAGES)
        ).numpy()


def _write(write_onnx, nodes, weights, opset=20):
    """Write a graph whose output's type and shape are what they turn out to be."""
    path = write_onnx("m.onnx", nodes, weights, image=("batch", 2, 7, 6), opset=opset)
    model = onnx.load(path)
    del model.graph.output[:]
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    kind = next(value.type for value in inferred.graph.value_info if value.name == "scores")
    model.graph.output.add(name="scores").type.CopyFrom(kind)
    path.write_bytes(model.SerializeToString())
    return path


def _agree(wanted, came):
    assert came.shape == wanted.shape
    np.testing.assert_allclose(came.astype(np.float64), wanted.astype(np.float64), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form[0])
def test_the_twin_computes_what_the_runtime_computes(write_onnx, form):
    op, inputs, attributes, opset = form
    names = ["" if value is None else f"w{index}" for index, value in enumerate(inputs)]
    weights = {name: value for name, value in zip(names, inputs, strict=True) if name}
    source = "image"
    nodes = []
    if op == "DequantizeLinear":
        weights["s"], source = np.float32(0.05), "codes"
        nodes.append(helper.make_node("QuantizeLinear", ["image", "s"], ["codes"]))
    nodes.append(helper.make_node(op, [source, *names], ["scores"], **attributes))
    wanted, came = _answers(_write(write_onnx, nodes, weights, opset))
    if op == "Sqrt":
        assert np.isnan(wanted).any()
    _agree(wanted, came)


@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_compute_what_the_runtime_computes(write_onnx, name):
    nodes, weights = GRAPHS[name]
    _agree(*_answers(_write(write_onnx, nodes, weights)))


def test_every_operator_was_tried():
    tried = {form[0] for form in FORMS} | {node.op_type for nodes, _ in GRAPHS.values() for node in nodes}
    assert set(OPERATORS) - tried == set()


REFUSED = {
    "pooled indices": [helper.make_node("MaxPool", ["image"], ["scores", "indices"], kernel_shape=[2, 2])],
    "column-major": [
        helper.make_node("MaxPool", ["image"], ["scores"], kernel_shape=[2, 2], storage_order=1)
    ],
    "training": [helper.make_node("BatchNormalization", ["image", *"abcd"], ["scores"], training_mode=1)],
    "wrap": [helper.make_node("Pad", ["image", "pads"], ["scores"], mode="wrap")],
    "to a string": [helper.make_node("Cast", ["image"], ["scores"], to=TENSOR.STRING)],
    "to a quarter": [
        helper.make_node("QuantizeLinear", ["image", "s"], ["scores"], output_dtype=TENSOR.UINT4)
    ],
    "dilated and padded": [
        helper.make_node(
            "MaxPool", ["image"], ["scores"], kernel_shape=[2, 2], dilations=[2, 2], auto_pad="SAME_UPPER"
        )
    ],
    "rounded up and padded unevenly": [
        helper.make_node(
            "MaxPool", ["image"], ["scores"], kernel_shape=[2, 2], pads=[0, 0, 1, 1], ceil_mode=1
        )
    ],
    "four dimensions": [helper.make_node("MaxPool", ["image"], ["scores"], kernel_shape=[1, 1, 1, 1])],
    "in blocks": [
        helper.make_node("DequantizeLinear", ["image", "s"], ["scores"], block_size=2),
    ],
    "one zero point a row": [helper.make_node("MatMulInteger", ["codes", "codes", "rows"], ["scores"])],
    "dilated mean": [
        helper.make_node("AveragePool", ["image"], ["scores"], kernel_shape=[2, 2], dilations=[2, 2])
    ],
}


@pytest.mark.parametrize("name", REFUSED)
def test_forms_without_a_twin_are_refused_not_approximated(write_onnx, name):
    import torch

    weights = dict.fromkeys("abcd", np.ones(2, np.float32)) | {
        "pads": _ints(0, 0, 1, 1, 0, 0, 1, 1),
        "s": np.float32(1),
        "codes": np.ones((2, 2), np.uint8),
        "rows": np.zeros(2, np.uint8),
    }
    used = {entry for node in REFUSED[name] for entry in node.input}
    weights = {key: value for key, value in weights.items() if key in used}
    path = write_onnx("m.onnx", REFUSED[name], weights, image=("batch", 2, 7, 6), opset=21)
    with pytest.raises(ProbeError, match=REFUSED[name][0].op_type):
        build_twin(path)(torch.from_numpy(IMAGES))
