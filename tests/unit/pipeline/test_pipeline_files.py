# SPDX-License-Identifier: Apache-2.0
"""Outputs appear whole or not at all."""

import errno
import os

import pytest

from checks.errors import StorageError
from pipeline.files import output_dir, output_file, write_json


def test_a_folder_appears_whole(tmp_path):
    with output_dir(tmp_path / "out") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "out").exists()
    assert (tmp_path / "out" / "a").read_text() == "1"
    assert os.listdir(tmp_path) == ["out"]


def test_an_error_leaves_nothing_and_keeps_what_was(tmp_path):
    with output_dir(tmp_path / "out") as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), output_dir(tmp_path / "out") as folder:
        (folder / "a").write_text("new")
        raise ZeroDivisionError
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_is_replaced_not_merged(tmp_path):
    for name in ("a", "b"):
        with output_dir(tmp_path / "out") as folder:
            (folder / name).write_text(name)
    assert os.listdir(tmp_path / "out") == ["b"]


def test_leftovers_of_a_killed_writer_go(tmp_path):
    (tmp_path / ".out.tmp-dead").mkdir()
    (tmp_path / ".out.tmp-dead" / "half").write_text("x")
    with output_dir(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("writer", [output_dir, output_file])
def test_no_space_is_a_clear_error_and_leaves_nothing(tmp_path, writer):
    with pytest.raises(StorageError, match="No space left") as caught, writer(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(tmp_path / "out") in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_nan_never_reaches_a_json_file(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert os.listdir(tmp_path) == []


def test_equal_values_have_equal_bytes(tmp_path):
    write_json(tmp_path / "a", {"b": 1, "a": [1.5, "ü"]})
    write_json(tmp_path / "b", {"a": [1.5, "ü"], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
