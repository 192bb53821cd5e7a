# SPDX-License-Identifier: Apache-2.0
"""Other runtimes: the same file, loaded for real where they are installed, and compared."""

import json
import sys
import types

import numpy as np
import onnx
import pytest
from onnx import helper

from checks.errors import ModelError
from leangate.cli import main
from pipeline.compress.precision_configs import StaticInt8
from pipeline.compress.static_int8 import quantize_static_int8
from pipeline.probes.session import open_session, predict
from pipeline.probes.targets import RUNTIMES, Runtime, check_targets
from tests.onnx_nets import images_of, residual_net, write_net

CPU = Runtime("the CPU again", "CPUExecutionProvider")
OPENVINO = next(runtime for runtime in RUNTIMES if runtime.package == "openvino")


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    folder = tmp_path_factory.mktemp("targets")
    quantize_static_int8(residual_net(folder / "a.onnx"), folder / "b.onnx", images_of(64), StaticInt8())
    return folder / "b.onnx"


def test_openvino_reads_the_int8_file_and_decides_alike(int8):
    pytest.importorskip("openvino")
    [found] = check_targets(int8, images_of(100), [OPENVINO])
    assert (found.state, found.reason) == ("runs", "")
    assert found.agreement >= 0.98
    assert 0 <= found.difference < 0.5


def test_a_provider_runs_its_share_of_the_nodes(int8):
    [found] = check_targets(int8, images_of(100), [CPU])
    assert (found.state, found.agreement, found.difference, found.own) == ("runs", 1.0, 0.0, 1.0)


def test_what_is_not_here_is_told_how_to_get(int8):
    absent = Runtime("Nowhere", "NowhereExecutionProvider", get="pip install nowhere")
    [found] = check_targets(int8, images_of(4), [absent])
    assert (found.state, found.reason) == ("absent", "pip install nowhere")


def _stand_in(monkeypatch, answer):
    """A runtime of its own with the interface of OpenVINO."""
    core = types.SimpleNamespace(read_model=lambda path: path, compile_model=lambda model, device: answer)
    module = types.ModuleType("openvino")
    module.Core = lambda: core
    module.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "openvino", module)


def test_a_runtime_that_refuses_or_answers_otherwise_is_told_apart(int8, monkeypatch):
    def refuse(_):
        raise RuntimeError("line one\nQLinearConv is not supported")

    def worst(images):
        return [-predict(open_session(int8), images, 64)]

    for answer, state, reason in (
        (refuse, "refused", "RuntimeError: QLinearConv is not supported"),
        (worst, "differs", ""),
        (
            lambda images: [np.zeros((len(images), 3), np.float32)],
            "refused",
            "answers (70, 3) in place of (70, 4)",
        ),
    ):
        _stand_in(monkeypatch, answer)
        [found] = check_targets(int8, images_of(70), [OPENVINO])
        assert (found.state, found.reason) == (state, reason)


def test_what_cannot_decide_does_not_agree(tmp_path, capsys):
    nodes = [
        helper.make_node("ReduceMean", ["image", "axes"], ["m"], keepdims=0),
        helper.make_node("Sub", ["m", "m"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["scores"]),
    ]
    path = write_net(tmp_path / "a.onnx", nodes, {"axes": np.array([2, 3])}, channels=4)
    [found] = check_targets(path, images_of(10, channels=4), [CPU])
    assert (found.state, found.agreement, found.difference) == ("differs", 0.0, None)
    with pytest.raises(ModelError, match="expected the model to run"):
        check_targets(path, images_of(10, channels=3), [CPU])


def test_the_command_prints_a_table_and_fails_where_one_refuses(int8, capsys, monkeypatch):
    _stand_in(monkeypatch, lambda images: [])
    assert main(["targets", str(int8)]) == 1
    said = capsys.readouterr().out
    assert "refused" in said
    assert "256 images of noise" in said
    assert main(["targets", str(int8), "--json"]) == 1
    found = {entry["runtime"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["OpenVINO"]["state"] == "refused"
    assert set(found) == {runtime.name for runtime in RUNTIMES}


def test_what_is_no_model_is_refused(tmp_path, capsys):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"\x08\x07junk")
    with pytest.raises(ModelError):
        check_targets(path, images_of(4))
    assert main(["targets", str(path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_images_have_the_shape_of_the_file(tmp_path, capsys):
    nodes = [helper.make_node("ReduceMean", ["image", "axes"], ["scores"], keepdims=0)]
    path = write_net(tmp_path / "a.onnx", nodes, {"axes": np.array([2, 3])}, channels=4, size=5)
    onnx.checker.check_model(onnx.load(path))
    assert main(["targets", str(path), "--json"]) in (0, 1)
    assert capsys.readouterr().out.startswith("[")
