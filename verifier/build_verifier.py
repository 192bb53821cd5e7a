# SPDX-License-Identifier: Apache-2.0
"""Build backend (PEP 517) of `leangate-verify`: setuptools, on a copy of the modules that the command needs.

Copied are `leangate.verifier`, the modules it imports, anywhere in them, and what those import; and all of
`checks`, which checks of other distributions may use. A module that asks for a library which is not declared
stops the build.
"""

from __future__ import annotations

import ast
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = [
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "reach",
]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENTRY = "leangate.verifier"
PACKAGES = ("checks", "leangate", "pipeline")
DATA = (
    "pipeline/attestation/schemas/gate-evidence.json",
    "pipeline/attestation/schemas/waiver.json",
    "pipeline/card/catalogue/eu-ai-act-annex-iv.json",
    "pipeline/card/catalogue/eu-ai-act.json",
    "pipeline/card/catalogue/iso-iec-42001.json",
    "pipeline/card/catalogue/nist-ai-rmf.json",
)
ALLOWED = {
    "cryptography",
    "markdown_it",
    "numpy",
    "pydantic",
    "pydantic_core",
    "rich",
    "ruamel",
    "scipy",
    "securesystemslib",
}
"""Top-level modules of the dependencies in `pyproject.toml`, and of theirs that are used."""

_EPOCH = "315532800"
"""1980-01-01, the earliest time a zip file can hold: the same sources give the same bytes."""


def _modules(root: Path) -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(path: Path) -> set[str]:
    """Every module that is imported, at any depth; those for types alone are not."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return names


def reach(root: Path) -> list[Path]:
    """Return the modules to copy, in order.

    Args:
        root: Holds `checks`, `leangate` and `pipeline`.

    Raises:
        ImportError: if one asks for a library that is not declared.
    """
    modules = _modules(root)
    waiting = [ENTRY, *(name for name in modules if name.split(".")[0] == "checks")]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        imported = _imports(modules[name])
        for other in imported:
            top = other.split(".")[0]
            if top not in PACKAGES and top not in sys.stdlib_module_names and top not in ALLOWED:
                raise ImportError(f"expected {name} to need only {sorted(ALLOWED)}, got {other}")
        parents = {name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)}
        waiting += (imported | parents) & modules.keys()
    return sorted(modules[name] for name in seen)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


@contextlib.contextmanager
def _assembled() -> Iterator[None]:
    """Go into a folder that holds this distribution with its sources; an unpacked sdist is one already."""
    before, epoch = Path.cwd(), os.environ.get("SOURCE_DATE_EPOCH")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "leangate-verify"
        shutil.copytree(
            HERE, folder, ignore=shutil.ignore_patterns("__pycache__", "build", "dist", "*.egg-info")
        )
        sources = folder / "leangate_verify" / "_sources"
        if not sources.exists():
            for path in [*reach(ROOT), *(ROOT / entry for entry in DATA)]:
                _copy(path, sources / path.relative_to(ROOT))
            _copy(ROOT / "LICENSE", folder / "LICENSE")
        os.environ.setdefault("SOURCE_DATE_EPOCH", _EPOCH)
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
            if epoch is None:
                del os.environ["SOURCE_DATE_EPOCH"]


def get_requires_for_build_wheel(_settings: Any = None) -> list[str]:
    """Nothing beyond `build-system.requires`."""
    return []


def get_requires_for_build_sdist(_settings: Any = None) -> list[str]:
    """Nothing beyond `build-system.requires`."""
    return []


def build_wheel(wheel_directory: str, _settings: Any = None, _metadata: str | None = None) -> str:
    """Build the wheel into `wheel_directory` and return its name."""
    from setuptools import build_meta

    target = str(Path(wheel_directory).resolve())
    with _assembled():
        return str(build_meta.build_wheel(target))


def build_sdist(sdist_directory: str, _settings: Any = None) -> str:
    """Build the source distribution into `sdist_directory` and return its name."""
    from setuptools import build_meta

    target = str(Path(sdist_directory).resolve())
    with _assembled():
        return str(build_meta.build_sdist(target))
