# SPDX-License-Identifier: Apache-2.0
"""What the small distribution `leangate-verify` is made of: nothing heavy, and the ranges of the large one."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def backend():
    spec = importlib.util.spec_from_file_location("build_verifier", ROOT / "verifier" / "build_verifier.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_reaches_what_judges_and_nothing_that_runs_a_model(backend):
    reached = {path.relative_to(ROOT).as_posix() for path in backend.reach(ROOT)}
    assert {
        "checks/judge.py",
        "pipeline/verification.py",
        "leangate/verify.py",
        "checks/__init__.py",
    } <= reached
    assert not {path for path in reached if "registry" in path or "train" in path}


def test_a_module_that_asks_for_more_stops_the_build(backend, tmp_path):
    for name in ("checks", "pipeline", "leangate"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    (tmp_path / "leangate" / "verifier.py").write_text("from pipeline.other import run\n")
    (tmp_path / "pipeline" / "other.py").write_text("def run():\n    import torch\n")
    with pytest.raises(ImportError, match=r"expected pipeline\.other to need only .*, got torch"):
        backend.reach(tmp_path)


def test_its_dependencies_have_the_ranges_of_the_whole():
    small, large = (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        for folder in ("verifier", ".")
    )
    assert set(small["dependencies"]) < set(large["dependencies"])
    assert small["requires-python"] == large["requires-python"]
