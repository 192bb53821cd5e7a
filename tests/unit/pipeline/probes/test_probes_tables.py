# SPDX-License-Identifier: Apache-2.0
"""Tables: equal content is equal bytes, and the reader of evidence reads back what was written."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from checks.errors import EvidenceError, ProbeError
from checks.evidence import read_table
from pipeline.probes.tables import write_table

HEADER = {"schema": "leangate/test/1", "b": [1, 2.5], "a": "ü"}
ARRAYS = {
    "ids": np.array(["a", "ü", ""]),
    "scores": np.arange(6, dtype=np.float32).reshape(3, 2),
    "right": np.array([[True, False]]),
    "count": np.array([-1, 2**40]),
}


def test_what_is_written_is_read_back(tmp_path):
    write_table(tmp_path / "t.npz", HEADER, ARRAYS)
    header, arrays = read_table(tmp_path / "t.npz", "leangate/test/1")
    assert header == HEADER
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_equal_content_is_equal_bytes(tmp_path):
    write_table(tmp_path / "one.npz", HEADER, ARRAYS)
    other = {name: np.asfortranarray(ARRAYS[name]) for name in reversed(ARRAYS)}
    other["count"] = other["count"].astype(">i8")
    write_table(tmp_path / "two.npz", dict(reversed(HEADER.items())), other)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_no_date_and_no_compressor_gets_into_the_bytes(tmp_path):
    write_table(tmp_path / "t.npz", HEADER, ARRAYS)
    with zipfile.ZipFile(tmp_path / "t.npz") as archive:
        members = archive.infolist()
    assert {member.date_time for member in members} == {(1980, 1, 1, 0, 0, 0)}
    assert {member.compress_type for member in members} == {zipfile.ZIP_STORED}


def test_other_content_is_other_bytes(tmp_path):
    write_table(tmp_path / "one.npz", HEADER, ARRAYS)
    write_table(tmp_path / "two.npz", HEADER | {"a": "u"}, ARRAYS)
    assert (tmp_path / "one.npz").read_bytes() != (tmp_path / "two.npz").read_bytes()


@pytest.mark.parametrize(
    ("header", "arrays"),
    [
        (HEADER, {"x": np.array([{"a": 1}], dtype=object)}),
        (HEADER, {"x": np.array(["2020"], dtype="datetime64[Y]")}),
        (HEADER, {"header": np.zeros(1)}),
        ({"a": 1}, ARRAYS),
    ],
    ids=["objects", "dates", "a second header", "no schema"],
)
def test_what_no_reader_would_accept_is_not_written(tmp_path, header, arrays):
    with pytest.raises(ProbeError):
        write_table(tmp_path / "t.npz", header, arrays)
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_json_cannot_carry_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_table(tmp_path / "t.npz", HEADER | {"a": float("nan")}, ARRAYS)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_table_is_refused(tmp_path):
    write_table(tmp_path / "t.npz", HEADER, ARRAYS)
    (tmp_path / "t.npz").write_bytes((tmp_path / "t.npz").read_bytes()[:-30])
    with pytest.raises(EvidenceError):
        read_table(tmp_path / "t.npz", "leangate/test/1")
