# SPDX-License-Identifier: Apache-2.0
"""`leangate-verify` as an auditor has it: its wheel in an environment of its own, with what it declares and no more."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from pipeline.version import VERSION
from tests.bundle_project import signed_bundle

ROOT = Path(__file__).resolve().parents[2]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
NOT_THERE = (
    "torch",
    "mlflow",
    "onnxruntime",
    "onnx",
    "dvc",
    "pandas",
    "sklearn",
    "art",
    "leangate",
    "pipeline",
)
SCHEMA = "pipeline/attestation/schemas/gate-evidence.json"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def _run(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    environment = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
    done = subprocess.run(
        [str(word) for word in words],
        **{"env": environment, "capture_output": True, "text": True, "check": False, **options},
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def _build(hook: str, source: Path, target: Path) -> Path:
    """Call a hook of a source tree's build backend, as pip does."""
    target.mkdir(parents=True, exist_ok=True)
    code = (
        "import importlib, sys, tomllib\n"
        "system = tomllib.load(open('pyproject.toml', 'rb'))['build-system']\n"
        "sys.path[:0] = system.get('backend-path', [])\n"
        "backend = importlib.import_module(system['build-backend'])\n"
        "print(getattr(backend, sys.argv[1])(sys.argv[2]))\n"
    )
    done = _run(sys.executable, "-c", code, hook, target, cwd=source)
    assert done.returncode == 0, done.stderr
    return target / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return _build("build_wheel", ROOT / "verifier", tmp_path_factory.mktemp("wheel"))


def _declared(wheel: Path) -> set[str]:
    """Names of the distributions that the wheel asks for, and that those ask for."""

    def name(requirement: str) -> str:
        return re.match(r"[A-Za-z0-9_.-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")

    with zipfile.ZipFile(wheel) as archive:
        [member] = [entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA")]
        text = archive.read(member).decode()
    waiting = [line.split(": ", 1)[1] for line in text.splitlines() if line.startswith("Requires-Dist: ")]
    found: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        if name(requirement) in found:
            continue
        found.add(name(requirement))
        crypto = "[crypto]" in requirement
        for other in metadata.requires(name(requirement)) or ():
            head, _, marker = other.partition(";")
            if "extra" not in marker or (crypto and '"crypto"' in marker.replace("'", '"')):
                try:
                    metadata.distribution(name(head))
                except metadata.PackageNotFoundError:  # for another platform or Python
                    continue
                waiting.append(head.strip())
    return found


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """An environment into which pip installed the wheel, beside links to the distributions it declares."""
    folder = tmp_path_factory.mktemp("alone")
    assert _run(sys.executable, "-m", "venv", "--without-pip", folder).returncode == 0
    python = folder / "bin" / "python"
    done = _run(*PIP, "--python", python, "install", "--quiet", "--no-index", "--no-deps", wheel)
    assert done.returncode == 0, done.stderr
    [site] = folder.glob("lib/python*/site-packages")
    for name in _declared(wheel):
        files = metadata.distribution(name).files or ()
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            target = site / top
            if not target.exists():
                target.symlink_to(Path(str(metadata.distribution(name).locate_file(top))))
    return python


@pytest.fixture(scope="module")
def signed(tmp_path_factory) -> tuple[Path, Path]:
    """A signed bundle, and the folder of its key."""
    return signed_bundle(tmp_path_factory.mktemp("signed"))


def test_it_verifies_what_is_whole_and_refuses_what_was_changed(python, signed, tmp_path):
    bundle, keys = signed
    command = python.parent / "leangate-verify"
    for module in NOT_THERE:
        found = _run(
            python,
            "-I",
            "-c",
            f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is not None)",
        )
        assert found.returncode == 0, module
    done = _run(command, bundle, "--trust", keys, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    ours = _run(sys.executable, "-m", "leangate", "verify", bundle, "--trust", keys, cwd=ROOT)
    assert (ours.stdout, ours.returncode) == (done.stdout, 0)
    changed = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    data = bytearray((changed / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (changed / "model.onnx").write_bytes(data)
    done = _run(command, changed, "--trust", keys, "--json")
    assert done.returncode == 1
    assert "model.onnx" in json.loads(done.stdout)["error"]
    assert _run(command, tmp_path).returncode == 2
    assert _run(command, "--version").stdout == f"leangate-verify {VERSION}\n"


def test_what_else_is_installed_under_its_names_is_not_asked(python, signed, tmp_path):
    """Another LeanGate, or a stranger's `checks`, may lie in the same environment, or where it is called."""
    bundle, keys = signed
    for name in ("checks", "pipeline", "leangate"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('a stranger judges')\n")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    for words in ([python.parent / "leangate-verify"], [python, "-m", "leangate_verify"]):
        done = _run(*words, bundle, "--trust", keys, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [
            python,
            "-c",
            "import sys; sys.modules['checks'] = sys\nfrom leangate_verify.__main__ import main; main([])",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ImportError: expected a process of its own, got one that has loaded checks" in done.stderr


def test_the_wheel_holds_one_name_and_the_same_sources_give_the_same_bytes(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {
        "leangate_verify",
        f"leangate_verify-{VERSION}.dist-info",
    }
    assert f"leangate_verify/_sources/{SCHEMA}" in names
    assert not any("bundle.py" in name or "train" in name or "registry" in name for name in names)
    again = _build("build_wheel", ROOT / "verifier", tmp_path / "again")
    assert again.read_bytes() == wheel.read_bytes()
    with tarfile.open(_build("build_sdist", ROOT / "verifier", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    [source] = (tmp_path / "unpacked").iterdir()
    assert _build("build_wheel", source, tmp_path / "from-sdist").read_bytes() == wheel.read_bytes()
    leftovers = {"build", "dist", "LICENSE", "leangate_verify.egg-info"}
    assert not leftovers & {path.name for path in (ROOT / "verifier").iterdir()}


def test_leangate_s_own_wheel_and_sdist_hold_the_predicate_s_schema(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("leangate", "pipeline", "checks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    with zipfile.ZipFile(_build("build_wheel", source, tmp_path / "wheel")) as archive:
        assert archive.read(SCHEMA) == (ROOT / SCHEMA).read_bytes()
        [entry] = [name for name in archive.namelist() if name.endswith("METADATA")]
        assert f"\nVersion: {VERSION}\n" in archive.read(entry).decode()
    with tarfile.open(_build("build_sdist", source, tmp_path / "sdist")) as archive:
        assert f"leangate-{VERSION}/{SCHEMA}" in archive.getnames()
