# SPDX-License-Identifier: Apache-2.0
"""The code digest moves with every source file, and with nothing else."""

from __future__ import annotations

import re

import pytest

from checks.errors import StorageError
from pipeline.probes.code_digest import code_sha256


@pytest.fixture
def tree(tmp_path):
    for name in ("checks/a.py", "checks/deep/b.py", "pipeline/c.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")
    return tmp_path


CHANGES = {
    "an edit": lambda tree: (tree / "checks/deep/b.py").write_text("# other\n"),
    "a new file": lambda tree: (tree / "pipeline/new.py").touch(),
    "a removed file": lambda tree: (tree / "checks/a.py").unlink(),
    "a renamed file": lambda tree: (tree / "checks/a.py").rename(tree / "checks/z.py"),
    "two files that swap content": lambda tree: (
        (tree / "checks/a.py").write_text("# checks/deep/b.py\n"),
        (tree / "checks/deep/b.py").write_text("# checks/a.py\n"),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_code_changes_move_it(tree, change):
    before = code_sha256(tree)
    CHANGES[change](tree)
    assert code_sha256(tree) != before


def test_other_files_do_not(tree):
    before = code_sha256(tree)
    (tree / "checks/__pycache__").mkdir()
    (tree / "checks/__pycache__/a.cpython-311.pyc").touch()
    (tree / "pipeline/notes.md").touch()
    (tree / "other.py").touch()
    assert code_sha256(tree) == before


def test_it_does_not_depend_on_the_folder(tree, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "copy"
    tree.rename(elsewhere)
    elsewhere_digest = code_sha256(elsewhere)
    elsewhere.rename(tree)
    assert code_sha256(tree) == elsewhere_digest


def test_no_code_has_no_digest(tmp_path):
    (tmp_path / "checks").mkdir()
    with pytest.raises(StorageError):
        code_sha256(tmp_path)


def test_the_running_code_has_one():
    assert re.fullmatch(r"[0-9a-f]{64}", code_sha256())
