# SPDX-License-Identifier: Apache-2.0
"""dvc.yaml names the code of every stage: a stage whose code changed and did not run again would lie."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pipeline.stages import STAGES

PLUMBING = {
    "__init__",
    "canonical",
    "errors",
    "configs",
    "precision_configs",
    "files",
    "layout",
    "params",
    "section_errors",
    "progress",
    "sections",
    "stages",
}
"""Modules every stage has; a change in them changes how a stage is started or writes, never what."""


def _modules(root: Path) -> dict[str, Path]:
    found = {}
    for path in (root / "pipeline").rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _is_for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if _is_for_types_only(node):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        waiting += ast.iter_child_nodes(node)
    return names


def _reached(start: str, modules: dict[str, Path]) -> set[Path]:
    seen, waiting = {start}, [start]
    while waiting:
        for name in _imports(modules[waiting.pop()]) & modules.keys() - seen:
            seen.add(name)
            waiting.append(name)
    return {modules[name] for name in seen}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_it_imports(repository, stage):
    from ruamel.yaml import YAML

    declared = YAML(typ="safe").load(repository / "dvc.yaml")["stages"][stage]["deps"]
    folders = [repository / name for name in declared if name.startswith("pipeline")]
    missing = sorted(
        str(path.relative_to(repository))
        for path in _reached(f"pipeline.{stage}", _modules(repository))
        if path.stem not in PLUMBING and not any(path.is_relative_to(folder) for folder in folders)
    )
    assert missing == []
