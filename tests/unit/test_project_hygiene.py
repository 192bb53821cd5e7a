# SPDX-License-Identifier: Apache-2.0
"""What every file of the project has in common, and how fast its faces start."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for name in ("checks", "pipeline", "leangate", "examples", "benchmarks", "tests", "verifier")
    for path in (ROOT / name).rglob("*.py")
)
HEAVY = {
    "torch",
    "onnx",
    "onnxruntime",
    "mlflow",
    "dvc",
    "pandas",
    "pyarrow",
    "sklearn",
    "great_expectations",
    "art",
    "fairlearn",
    "matplotlib",
    "optuna",
    "sqlalchemy",
    "scipy.stats",
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_names_its_licence_and_says_what_it_is(path):
    text = path.read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
    assert ast.get_docstring(ast.parse(text))


def _modules_after(code):
    script = f"{code}\nimport sys\nprint('MODULES', *sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.rsplit("MODULES", 1)[1].split())


STAGES = [
    "prepare",
    "validate",
    "train",
    "prune",
    "quantize",
    "shortlist",
    "evaluate",
    "time",
    "gate",
    "select",
    "enforce",
    "bundle",
    "register",
    "registry",
    "stages",
    "params",
    "report",
]


@pytest.mark.parametrize(
    "code",
    [
        *[f"import pipeline.{name}" for name in STAGES],
        "from leangate.cli import build_parser; build_parser()",
        "from pipeline.policy_file import load_policy; from pathlib import Path; load_policy(Path('policy.yaml'))",
    ],
)
def test_faces_import_nothing_heavy(code):
    assert not _modules_after(code) & HEAVY


def test_the_gate_itself_needs_neither_models_nor_tools(tmp_path):
    assert not _modules_after(
        "import checks.decision, checks.evidence, checks.protocol; checks.protocol.built_in_checks()"
    ) & (HEAVY | {"scipy", "pydantic", "ruamel"})


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCES if p.parts[-2] != "tests" and "tests" not in p.parts],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_code_is_loaded_from_data(path):
    text = path.read_text()
    for pattern in (
        r"\bimport pickle",
        r"\beval\(",
        r"\bexec\(",
        r"shell=True",
        r"allow_pickle=True",
        r"yaml\.load\(",
        r"torch\.load\(",
        r"joblib\.load",
    ):
        assert not re.search(r"(?<![.\w])" + pattern if pattern.startswith(r"\b") else pattern, text), pattern


def test_pins_cover_what_the_project_asks_for():
    import tomllib

    pins = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for requirement in project["dependencies"] + project["optional-dependencies"]["dev"]:
        assert re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-") in pins, requirement
