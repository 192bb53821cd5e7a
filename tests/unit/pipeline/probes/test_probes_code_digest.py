# SPDX-License-Identifier: Apache-2.0
"""The code digest moves with every source file, and with nothing else."""

from __future__ import annotations

import re

import pytest

from checks.errors import StorageError
from pipeline.probes.code_digest import code_sha256


@pytest.fixture
def tree(tmp_path):
    for name in ("a.py", "deep/b.py", "c.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    return tmp_path


CHANGES = {
    "an edit": lambda tree: (tree / "deep/b.py").write_text("# other\n"),
    "a new file": lambda tree: (tree / "new.py").touch(),
    "a removed file": lambda tree: (tree / "a.py").unlink(),
    "a renamed file": lambda tree: (tree / "a.py").rename(tree / "z.py"),
    "two files that swap content": lambda tree: (
        (tree / "a.py").write_text("# deep/b.py\n"),
        (tree / "deep/b.py").write_text("# a.py\n"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_code_changes_move_it(tree, change):
    before = code_sha256(tree)
    CHANGES[change](tree)
    assert code_sha256(tree) != before


def test_other_files_do_not(tree):
    before = code_sha256(tree)
    (tree / "__pycache__").mkdir()
    (tree / "__pycache__/a.cpython-311.pyc").touch()
    (tree / "notes.md").touch()
    assert code_sha256(tree) == before


def test_it_does_not_depend_on_the_folder(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    tree.rename(elsewhere)
    elsewhere_digest = code_sha256(elsewhere)
    elsewhere.rename(tree)
    assert code_sha256(tree) == elsewhere_digest


def test_no_code_has_no_digest(tmp_path):
    with pytest.raises(StorageError):
        code_sha256(tmp_path)


def test_the_running_code_has_one():
    assert re.fullmatch(r"[0-9a-f]{64}", code_sha256())
