# SPDX-License-Identifier: Apache-2.0
"""Mutants of the judge: every comparison turned around, every boundary moved by nothing, every min a max.

A comparison in a judge decides who passes. If one could be wrong and no test noticed, nobody would.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

__all__ = ["JUDGE", "Mutant", "mutants_of"]

JUDGE: dict[str, tuple[str, ...]] = {
    "claim.py": (),
    "claim_values.py": (),
    "group_claim.py": (),
    "judge.py": (),
    "decision.py": (),
    "policy.py": ("matches", "kind_of"),
}
"""The modules that judge, and the functions of each that do; all of them if none is named."""

_SWAPS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_EXTREMES = {"min": "max", "max": "min"}


@dataclass(frozen=True)
class Mutant:
    """One module with one change.

    Attributes:
        file: Name of the module's file.
        function: The function it is in.
        was: The expression as it is.
        now: The expression in the mutant.
        count: How often the same change occurs earlier in the same function.
        source: The whole module.
    """

    file: str
    function: str
    was: str
    now: str
    count: int
    source: str

    @property
    def name(self) -> str:
        """Unique, and the same after an edit elsewhere in the file."""
        again = f" ({self.count + 1})" if self.count else ""
        return f"{self.file} {self.function}: {self.was} -> {self.now}{again}"


def _functions(tree: ast.Module) -> dict[ast.AST, str]:
    """Return the innermost named function of every node in one."""
    owner: dict[ast.AST, str] = {}

    def visit(node: ast.AST, inside: str) -> None:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.FunctionDef)
            name = (f"{inside}.{child.name}" if inside else child.name) if named else inside
            owner[child] = name
            visit(child, name)

    visit(tree, "")
    return owner


def mutants_of(folder: Path) -> list[Mutant]:
    """Return every mutant of the judge whose modules lie in `folder`."""
    found: list[Mutant] = []
    for file, wanted in JUDGE.items():
        tree = ast.parse((folder / file).read_text())
        owner = _functions(tree)
        seen: dict[tuple[str, str, str], int] = {}

        def add(node: ast.expr, was: str, file: str, tree: ast.Module, place: str) -> None:
            now = ast.unparse(node)
            count = seen.setdefault((place, was, now), 0)  # noqa: B023 - used within this turn alone
            seen[place, was, now] += 1  # noqa: B023
            found.append(Mutant(file, place, was, now, count, ast.unparse(tree)))

        for node in ast.walk(tree):
            place = owner.get(node, "")
            if wanted and place.split(".")[0] not in wanted:
                continue
            if isinstance(node, ast.Compare):
                was = ast.unparse(node)
                for position, operator in enumerate(node.ops):
                    for other in _SWAPS[type(operator)]:
                        node.ops[position] = other()
                        add(node, was, file, tree, place)
                    node.ops[position] = operator
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _EXTREMES:
                was, name = ast.unparse(node), node.func.id
                node.func.id = _EXTREMES[name]
                add(node, was, file, tree, place)
                node.func.id = name
    return found
