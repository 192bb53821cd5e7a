# SPDX-License-Identifier: Apache-2.0
"""verify: whatever is put in a bundle's or a key's place ends in a sentence and an exit code, soon."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from checks.canonical import dumps, sha256_file
from leangate.cli import main
from pipeline.attestation.keys import make_keys, read_revoked, read_trusted
from pipeline.card.contents import with_digest
from tests.bundle_project import signed_bundle

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A signed bundle, and the folder of its key."""
    return signed_bundle(tmp_path_factory.mktemp("made"))


@pytest.fixture
def bundle(made, tmp_path):
    """A copy without signatures: what is planted is found by what it is, not by its digest."""
    folder = Path(shutil.copytree(made[0], tmp_path / "bundle"))
    (folder / "attestations.jsonl").unlink()
    return folder


@pytest.fixture
def keys(made, tmp_path):
    return Path(shutil.copytree(made[1], tmp_path / "keys"))


@pytest.fixture
def verify(capsys):
    """Run the command, for programs and for people; return the exit code and what was wrong, on one line."""

    def run(*words):
        code = main(["verify", *map(str, words), "--json"])
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        value = json.loads(said.out) if said.out else {"verified": False, "error": said.err}
        assert value["verified"] == (code == 0)
        assert main(["verify", *map(str, words)]) == code
        told = capsys.readouterr()
        assert "Traceback" not in told.out + told.err
        assert ("NOT verified" in told.out or "error: " in told.err) == (code != 0)
        return code, " ".join(str(value["error"]).split())

    return run


def _edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(dumps(value))


def _mend(bundle, *, names=True):
    """Give every file the digest it has now, everywhere one stands: whoever made it may have done so."""
    old = json.loads((bundle / "bundle.json").read_text())["files"]
    for _ in range(4):  # digests of files that hold digests
        new = {
            path.relative_to(bundle).as_posix(): sha256_file(path)
            for path in bundle.rglob("*")
            if path.is_file() and path.name != "bundle.json"
        }
        for name, digest in new.items():
            before = old.get(name, {}).get("sha256", digest)
            if before == digest:
                continue
            for path in bundle.rglob("*.json"):
                text = path.read_bytes()
                if before.encode() in text:
                    path.write_bytes(text.replace(before.encode(), digest.encode()))
            old[name] = {"sha256": digest}

    def name_again(value):
        value["files"] = {
            name: {"sha256": sha256_file(bundle / name), "bytes": (bundle / name).stat().st_size}
            for name in (new if names else value["files"])
        }

    value = json.loads((bundle / "bundle.json").read_text())
    name_again(value)
    (bundle / "bundle.json").write_text(dumps(with_digest(value)))


# --- keys ---------------------------------------------------------------------------------------------------


def test_a_key_that_is_missing_or_none_is_wrong_use(made, keys, tmp_path, verify):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pub").write_text("no key\n")
    for place, words in (
        (tmp_path / "none.pub", "no such file"),
        (tmp_path / "empty", "expected 1 to 1000 public keys (*.pub, *.pem), got 0"),
        (tmp_path / "text.pub", "expected an Ed25519 public key in PEM"),
        (keys / "leangate.key", "expected an Ed25519 public key in PEM"),
        (Path("/dev/null"), "expected a public key, got no such file"),
    ):
        code, said = verify(made[0], "--trust", place)
        assert code == 2
        assert words in said


def test_a_foreign_key_and_no_signature_are_not_verified(made, bundle, tmp_path, verify):
    make_keys(tmp_path / "other")
    code, said = verify(made[0], "--trust", tmp_path / "other")
    assert code == 1
    assert "signed by one of 1 trusted keys, got signatures of" in said
    code, said = verify(bundle, "--trust", tmp_path / "other")
    assert code == 1
    assert "expected signed attestations, got none" in said


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("", "(revoked)"),
        (" 2026-03-01", "(revoked since 2026-03-01)"),
        (" 2126-03-01 laptop stolen # of an intern", "(revoked since 2126-03-01: laptop stolen)"),
    ],
)
def test_a_revoked_key_does_not_count_whatever_the_day(made, keys, verify, rest, words):
    key = next(iter(read_trusted(keys)))
    (keys / "revoked").write_text(f"# keys that left\n\n{key}{rest}\n")
    for place in (keys, keys / "leangate.pub"):
        assert read_trusted(place) == {}
        code, said = verify(made[0], "--trust", place)
        assert code == 1
        assert f"{key[:16]} {words}" in said.replace(f"{key[:16]}(", f"{key[:16]} (")


def test_a_revocation_counts_for_every_place_of_keys_and_for_that_key_alone(made, keys, tmp_path, verify):
    key = next(iter(read_trusted(keys)))
    make_keys(tmp_path / "other")
    (tmp_path / "other" / "revoked").write_text("0" * 64 + "\n")
    assert verify(made[0], "--trust", keys, "--trust", tmp_path / "other")[0] == 0
    (tmp_path / "other" / "revoked").write_text(f"{key}\n")
    for places in ((keys, tmp_path / "other"), (tmp_path / "other", keys)):
        words = [word for place in places for word in ("--trust", place)]
        assert verify(made[0], *words)[0] == 1


@pytest.mark.parametrize(
    "content",
    [
        *(b"66f9f0e5\n", b"0" * 64 + b" yesterday\n", b"0" * 64 + b" 2026-13-01\n", b"\xff\xfe\n"),
        *(b"G" * 64 + b"\n", b"0" * 64 + b"\n" + b"#" * 70_000),
    ],
)
def test_a_revocation_that_cannot_be_read_is_never_passed_over(made, keys, verify, content):
    (keys / "revoked").write_bytes(content)
    code, said = verify(made[0], "--trust", keys)
    assert code == 2
    assert "revoked" in said


def test_a_list_of_revoked_keys_that_leads_nowhere_is_wrong_input(made, keys, verify):
    (keys / "revoked").symlink_to(keys / "gone")
    assert verify(made[0], "--trust", keys)[0] == 2
    (keys / "revoked").unlink()
    (keys / "revoked").mkdir()
    assert verify(made[0], "--trust", keys)[0] == 2
    assert read_revoked(keys.parent) == {}


# --- sizes --------------------------------------------------------------------------------------------------


def _sparse(path, size):
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("policy.yaml", 2**20 + 1),
        ("decision.json", 2**26 + 1),
        ("bundle.json", 2**26 + 1),
        ("model.onnx", 2**31 + 1),
        ("evidence/candidate.npz", 2**32 + 1),
    ],
)
def test_a_file_too_large_is_refused_before_it_is_read(bundle, verify, name, size):
    _sparse(bundle / name, size)
    code, said = verify(bundle)
    assert code == 1
    assert re.search(rf"{Path(name).name}: expected at most [0-9,]+ bytes, got {size:,}", said)


def test_a_file_cut_short_is_named(bundle, verify):
    path = bundle / "evidence" / "candidate.npz"
    path.write_bytes(path.read_bytes()[:-100])
    code, said = verify(bundle)
    assert code == 1
    assert "candidate.npz: expected bytes" in said


def _npy(array):
    with tempfile.TemporaryFile() as file:
        np.save(file, array, allow_pickle=True)
        file.seek(0)
        return file.read()


def _arrays(**members):
    def write(path):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(f"{name}.npy", data)

    return write


def _bomb(path):
    """Five gigabytes of zeros in five megabytes, and a header that tells the truth."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("ids.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (5 * 2**26,)}
        )
        for _ in range(5):
            file.write(bytes(2**26))
    data = bytearray(path.read_bytes())
    # Only its directory says that sixteen times as much is in there: what is refused is refused unread.
    size = 5 * 2**26 + 128
    place = data.rindex(size.to_bytes(4, "little"))
    data[place : place + 4] = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(data)


def _huge_shape(path):
    member = _npy(np.zeros(3)).replace(b"(3,), }" + b" " * 14, b"(9000000000000000,), }"[:21], 1)
    _arrays(ids=member, header=_npy(np.array("{}")))(path)


def _encrypted(path):
    _arrays(ids=_npy(np.zeros(3)))(path)
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


def _two_of_one_name(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ids.npy", _npy(np.zeros(3)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("ids.npy", _npy(np.zeros(3)))


@pytest.mark.parametrize(
    "write",
    [
        *(_bomb, _huge_shape, _encrypted, _two_of_one_name),
        pytest.param(_arrays(ids=_npy(np.array([{}], dtype=object))), id="objects"),
        pytest.param(_arrays(ids=b"x" * 100), id="no array"),
        pytest.param(_arrays(header=_npy(np.array("[" * 100_000))), id="deep header"),
        pytest.param(
            _arrays(header=_npy(np.array('{"schema": "leangate/scores/1", "schema": "x"}'))), id="twice"
        ),
        pytest.param(lambda path: path.write_bytes(b"PK\x05\x06" + bytes(18)), id="empty"),
        pytest.param(lambda path: path.write_bytes(_npy(np.zeros(3))), id="one array"),
        pytest.param(lambda path: path.write_bytes(b""), id="nothing"),
    ],
)
def test_a_table_that_is_none_or_a_bomb_is_refused(bundle, verify, write):
    write(bundle / "evidence" / "candidate.npz")
    _mend(bundle)
    code, said = verify(bundle)
    assert code == 1
    assert "candidate.npz: expected" in said


def test_a_header_of_other_types_is_no_evidence(bundle, verify):
    path = bundle / "evidence" / "examples.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(str(arrays["header"])) | {"classes": 5}
    np.savez(path, **arrays | {"header": np.array(json.dumps(header))})
    _mend(bundle)
    code, said = verify(bundle)
    assert code == 1
    assert "expected a bundle, got TypeError" in said


# --- names, links, devices ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        *(
            "../x",
            "evidence/../../x",
            "/etc/passwd",
            "C:\\x",
            "evidence\\examples.npz",
            "",
            ".",
            "a//b",
            "a/",
        ),
        *("policy.yaml\n", "x\u202egpj", "\u00e9.json", "x" * 300, "Policy.yaml", "EVIDENCE/cost.json"),
    ],
)
def test_a_name_that_leads_elsewhere_or_clashes_is_refused(bundle, verify, name):
    value = json.loads((bundle / "bundle.json").read_text())
    value["files"][name] = value["files"]["policy.yaml"]
    (bundle / "bundle.json").write_text(dumps(with_digest(value)))
    code, said = verify(bundle)
    assert code == 1
    assert "bundle.json files: expected names" in said or "bundle: expected the" in said


@pytest.mark.parametrize("name", [b"evidence\\cost.json", b"\xff\xfe.json", b"a\nb", b"POLICY.yaml"])
def test_a_file_whose_name_another_system_reads_otherwise_is_refused(bundle, verify, name):
    Path(os.fsdecode(os.fsencode(bundle) + b"/" + name)).write_bytes(b"{}")
    code, said = verify(bundle)
    assert code == 1
    assert "expected names" in said


def _socket(path):
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


@pytest.mark.parametrize(
    "make",
    [
        *(os.mkfifo, _socket),
        *(
            pytest.param(lambda path, target=target: path.symlink_to(target), id=target)
            for target in ("/dev/zero", "/dev/stdin", "/proc/self/mem", "bundle.json", "gone", ".", "/")
        ),
    ],
)
@pytest.mark.parametrize("name", ["policy.yaml", "bundle.json", "evidence/more"])
def test_links_and_devices_are_never_read(bundle, verify, make, name, monkeypatch):
    monkeypatch.chdir(bundle)
    (bundle / name).unlink(missing_ok=True)
    make(bundle / name)
    code, said = verify(bundle)
    # What is no file in the manifest's place is no bundle: wrong use.
    assert code == 2 if "no bundle.json" in said else code == 1
    assert "expected a bundle" in said or "got a link or a device" in said


def test_a_bundle_behind_a_link_is_no_folder(bundle, verify):
    (bundle.parent / "link").symlink_to(bundle)
    assert verify(bundle.parent / "link")[0] == 1


def test_a_folder_of_very_many_files_is_left_soon(bundle, verify, monkeypatch):
    listed = 0
    scandir = os.scandir

    class Endless:
        """A folder of a million files, as the system would list it."""

        def __init__(self, path):
            with scandir(path) as found:
                self.entry = next(entry for entry in found if entry.is_file())

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def __iter__(self):
            nonlocal listed
            for _ in range(1_000_000):
                listed += 1
                yield self.entry

    monkeypatch.setattr(os, "scandir", Endless)
    code, said = verify(bundle)
    monkeypatch.undo()
    assert code == 1
    assert "expected at most 1000 files, got more" in said
    assert listed < 3_000  # asked twice
    for index in range(1_001):
        (bundle / f"more-{index}").mkdir()
    assert "expected at most 1000 files, got more" in verify(bundle)[1]


def test_folders_in_each_other_are_left_soon(bundle, verify):
    (bundle / "/".join("d" * 50)).mkdir(parents=True)
    code, said = verify(bundle)
    assert code == 1
    assert "expected at most 8 folders in each other" in said


@pytest.mark.parametrize("name", ["policy.yaml", "bundle.json", "evidence", "evidence/cost.json", "."])
def test_what_cannot_be_read_is_not_checked(made, verify, name):
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        bundle = Path(shutil.copytree(made[0], Path(root) / "bundle"))
        if os.geteuid() == 0:  # to whom every file is readable
            for path in (bundle, *bundle.rglob("*")):
                os.chown(path, 65534, 65534)
        (bundle / name).chmod(0)
        root_here = os.geteuid() == 0
        if root_here:
            os.seteuid(65534)
        try:
            code, said = verify(bundle)
        finally:
            if root_here:
                os.seteuid(0)
            (bundle / name).chmod(0o700)
    assert code == 4
    assert "expected a readable" in said
    assert "Permission denied" in said


# --- what stands in the files -------------------------------------------------------------------------------

BAD_JSON = {
    "a key twice": '{"schema": "x", "schema": "x"}',
    "not a number": '{"schema": NaN}',
    "infinity": '{"schema": -Infinity}',
    "infinity in digits": '{"schema": 1e999}',
    "very many digits": '{"schema": ' + "9" * 5_000 + "}",
    "deep": "[" * 100_000,
    "deep and closed": '{"schema":' + "[" * 900 + "]" * 900 + "}",
    "half a character": '{"schema": "\\ud800"}',
    "no object": "[]",
    "nothing": "",
    "cut": '{"schema": "leangate',
}


@pytest.mark.parametrize("name", ["bundle.json", "decision.json", "records/model.json", "evidence/cost.json"])
@pytest.mark.parametrize("text", [*BAD_JSON.values(), b'{"schema": "\xff"}'], ids=[*BAD_JSON, "no UTF-8"])
def test_bad_json_is_a_sentence_that_names_the_file(bundle, verify, name, text):
    (bundle / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    if name != "bundle.json":
        _mend(bundle)
    code, said = verify(bundle)
    assert code == 1
    assert f"{Path(name).name}: expected" in said


def _laughs(levels=10):
    """A page of aliases that stands for ten thousand million values."""
    rows = ["&a [x,x,x,x,x,x,x,x,x,x]"]
    for before, name in zip("abcdefghij"[:levels], "bcdefghijk", strict=False):
        rows.append(f"&{name} [{','.join([f'*{before}'] * 10)}]")
    return f"[{', '.join(rows)}]"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace("lenient", _laughs()), id="aliases of aliases"),
        pytest.param(lambda text: text.replace("lenient", "&a [*a]"), id="endless"),
        pytest.param(lambda text: text + "? [1]\n: 2\n", id="a list as key"),
        pytest.param(lambda text: text + "version: 1\n", id="a key twice"),
        pytest.param(lambda text: text.replace("0.05", ".inf"), id="infinity"),
        pytest.param(lambda text: text.replace("0.05", "1e999"), id="infinity in digits"),
        pytest.param(lambda text: text.replace("lenient", "!!python/object:os.system x"), id="code"),
        pytest.param(lambda text: "[" * 5_000, id="deep"),
        pytest.param(lambda text: "", id="nothing"),
        pytest.param(lambda text: text.replace("version: 1", "version: 9"), id="another version"),
    ],
)
def test_a_bad_policy_is_a_sentence_that_names_the_file(bundle, verify, change):
    path = bundle / "policy.yaml"
    path.write_text(change(path.read_text()))
    _mend(bundle)
    code, said = verify(bundle)
    assert code == 1
    assert "policy.yaml" in said
    (bundle / "policy.yaml").write_bytes(b"name: \xff\n")
    _mend(bundle)
    assert verify(bundle)[0] == 1


@pytest.mark.parametrize(
    ("name", "schema"),
    [
        ("bundle.json", "leangate/bundle/"),
        ("records/model.json", "leangate/model/1"),
        ("decision.json", "leangate/decision/"),
        ("evidence/cost.json", "leangate/cost/1"),
    ],
)
def test_an_unknown_version_of_a_schema_is_not_checked_and_says_which_is_known(bundle, verify, name, schema):
    came = json.loads((bundle / name).read_text())["schema"]
    assert came.startswith(schema)
    later = f"{came.rpartition('/')[0]}/99"
    _edit(bundle / name, lambda value: value.update(schema=later))
    _mend(bundle)
    code, said = verify(bundle)
    assert code == 4
    assert f"expected schema {came}, the one known here, got {later}" in said
    _edit(bundle / name, lambda value: value.update(schema="something/else/1"))
    _mend(bundle)
    assert verify(bundle)[0] == 1


@pytest.mark.parametrize(
    "text",
    ["", "[]\n", "{\n", '{"payload": 1}\n', "[" * 100_000 + "\n", "x\n" * 200, "\ufeff{}\n", "{}\n{}\n"],
)
def test_bad_attestations_are_a_sentence(bundle, made, verify, text):
    (bundle / "attestations.jsonl").write_text(text)
    for words in ((), ("--trust", made[1])):
        code, said = verify(bundle, *words)
        assert code == 1
        assert "attestations.jsonl" in said


# --- single bytes -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mutations():
    spec = importlib.util.spec_from_file_location("mutations", ROOT / "benchmarks" / "mutations.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["mutations"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("signed", [True, False])
def test_three_hundred_changed_bytes_are_found(made, bundle, tmp_path, mutations, signed):
    folder = Path(shutil.copytree(made[0], tmp_path / "signed")) if signed else bundle
    trusted = read_trusted(made[1]) if signed else None
    before = {path: sha256_file(path) for path in folder.rglob("*") if path.is_file()}
    arm = mutations.run_arm("test", folder, trusted, 300, 1)
    assert arm.runs == 300
    assert arm.missed == []
    assert {path: sha256_file(path) for path in folder.rglob("*") if path.is_file()} == before


def test_a_miss_would_be_counted(made, tmp_path, mutations):
    """Without a key to trust nobody looks at the bytes of a signature."""
    folder = Path(shutil.copytree(made[0], tmp_path / "signed"))
    path = folder / "attestations.jsonl"
    data = path.read_bytes()
    place = data.rindex(b'"sig":"') + 20
    other = ord("B") if data[place] == ord("A") else ord("A")
    mutation = mutations.Mutation(path, place, data[place], other)
    assert mutations.verify_mutated(folder, mutation, None) == (False, "signatures")
    assert mutations.verify_mutated(folder, mutation, read_trusted(made[1]))[0]
    assert path.read_bytes() == data
