# SPDX-License-Identifier: Apache-2.0
"""The ledger: an exported one proves its order and its words, or names the line that does not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from checks.errors import EvidenceError, InputError
from leangate.cli import main
from pipeline.attestation.keys import make_keys, read_signer, read_trusted
from pipeline.ledger.entries import Checkpoint, Entry, Head, append, sign_checkpoint
from pipeline.ledger.history import end_of, terms_of
from pipeline.ledger.merkle import EMPTY, Frontier, leaf_hash, root_of
from pipeline.ledger.verification import START, export_lines, verify_lines

DAY = datetime(2026, 11, 24, 12, tzinfo=UTC)
DIGESTS = {f"{name}_sha256": name * 2 for name in ("onnx", "bundle", "policy", "decision")}

# Leaves and roots of the test vectors of RFC 6962's reference implementation (certificate-transparency).
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


class Book:
    """A ledger in memory, with a key of its own."""

    def __init__(self, folder: Path) -> None:
        make_keys(folder)
        self.key = folder / "leangate.pub"
        self.signer = read_signer(str(folder / "leangate.key"))
        self.head = Head("ab" * 16, Frontier(), START, DAY - timedelta(days=1))
        self.entries: list[Entry] = []
        self.pairs: list[Any] = []

    def add(self, act: str, at: datetime, version: str = "", by: str | None = "ann", **detail: Any) -> None:
        number, previous = len(self.entries) + 1, self.head.last
        self.put(Entry(self.head.ledger, number, at, by, act, "digits", version, detail, previous))

    def put(self, entry: Entry) -> None:
        frontier = self.head.frontier.add(entry.leaf)
        self.head = Head(self.head.ledger, frontier, entry.leaf, entry.at)
        self.entries.append(entry)
        self.pairs.append((entry.line, sign_checkpoint(entry, frontier, self.signer)))

    @property
    def lines(self) -> list[str]:
        return list(export_lines(self.pairs))

    def write(self, path: Path) -> Path:
        path.write_text("".join(f"{line}\n" for line in self.lines))
        return path


@pytest.fixture
def book(tmp_path: Path) -> Book:
    book = Book(tmp_path / "keys")
    book.add("open", DAY - timedelta(hours=1), by=None)
    for number, version in enumerate(("1", "2", "1")):
        at = DAY + timedelta(days=number)
        book.add("approve", at, version, by="bob", key=f"key{version}", until="2027-01-01", envelope="{}")
        book.add("promote", at, version, alias="production", approvals=[len(book.entries)], **DIGESTS)
    book.add("revoke", DAY + timedelta(days=9), "1", reason="a recall")
    return book


def test_roots_are_those_of_rfc_6962() -> None:
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES]
    assert [root_of(leaves[:count]) for count in range(1, 9)] == ROOTS
    assert root_of([]) == EMPTY == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_frontier_gives_the_root_a_plain_recursion_gives() -> None:
    """Section 2.1 as it is written: split at the largest power of two below the size."""
    import hashlib

    def plain(leaves: list[str]) -> str:
        if len(leaves) == 1:
            return leaves[0]
        half = 1 << (len(leaves) - 1).bit_length() - 1
        left, right = bytes.fromhex(plain(leaves[:half])), bytes.fromhex(plain(leaves[half:]))
        return hashlib.sha256(b"\x01" + left + right).hexdigest()

    leaves = [leaf_hash(bytes([number])) for number in range(70)]
    assert all(root_of(leaves[:count]) == plain(leaves[:count]) for count in range(1, 71))


def test_a_whole_ledger_verifies(book: Book, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = book.write(tmp_path / "ledger.jsonl")
    assert main(["ledger", "verify", str(file), "--trust", str(book.key)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("8 entries, 2026-11-24 11:00 to 2026-12-03 12:00 UTC")
    assert out.endswith("verified\n")
    assert "NOT" not in out


def changed(line: str, **values: Any) -> str:
    value = json.loads(line)
    entry = json.loads(value["entry"]) | values
    value["entry"] = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def without(lines: list[str], index: int) -> list[str]:
    return lines[:index] + lines[index + 1 :]


TAMPERED = {
    "an entry taken out": lambda lines: without(lines, 2),
    "the first taken out": lambda lines: lines[1:],
    "two swapped": lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]],
    "one twice": lambda lines: [*lines[:3], lines[2], *lines[3:]],
    "a version edited": lambda lines: [*lines[:2], changed(lines[2], version="7"), *lines[3:]],
    "a person edited": lambda lines: [*lines[:-1], changed(lines[-1], by="eve")],
    "dated back": lambda lines: [*lines[:-1], changed(lines[-1], at="2026-11-20T00:00:00.000000Z")],
    "another ledger": lambda lines: [*lines[:-1], changed(lines[-1], ledger="cd" * 16)],
    "an act nobody knows": lambda lines: [*lines[:-1], changed(lines[-1], act="bless")],
    "a key twice": lambda lines: [
        *lines[:-1],
        lines[-1].replace('{"checkpoint"', '{"entry":"x","checkpoint"'),
    ],
    "not JSON": lambda lines: [*lines[:-1], lines[-1][:-5]],
    "a number that is none": lambda lines: [*lines[:-1], lines[-1].replace('"size":8', '"size":NaN')],
    "nothing": lambda lines: [],
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_ledger_that_was_changed_is_found_out(
    what: str, book: Book, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ledger.jsonl"
    file.write_text("".join(f"{line}\n" for line in TAMPERED[what](book.lines)))
    assert main(["ledger", "verify", str(file)]) == 1
    out = capsys.readouterr().out
    assert "NOT verified" in out
    assert "ledger.jsonl" in out


def test_every_single_character_counts(book: Book) -> None:
    text = "\n".join(book.lines)
    keys = read_trusted(book.key)
    for position in range(0, len(text), 37):
        other = "0" if text[position] != "0" else "1"
        with pytest.raises(EvidenceError):
            verify_lines((text[:position] + other + text[position + 1 :]).split("\n"), keys, "ledger")


def test_what_is_written_anew_without_the_key_is_found_out(book: Book, tmp_path: Path) -> None:
    forger = Book(tmp_path / "forger")
    forger.head = Head(book.head.ledger, Frontier(), START, DAY)
    for entry in book.entries[:-1]:
        forger.add(entry.act, entry.at, entry.version, entry.by, **entry.detail)
    assert len(verify_lines(forger.lines, None, "ledger").entries) == 7, "without keys it holds together"
    with pytest.raises(EvidenceError, match="signed by one of 1 trusted keys"):
        verify_lines(forger.lines, read_trusted(book.key), "ledger")


def test_what_was_cut_off_is_found_out_by_a_checkpoint_kept_elsewhere(
    book: Book, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "checkpoint.json"
    kept.write_text(json.dumps(book.pairs[-1][1].to_json()))
    file = book.write(tmp_path / "ledger.jsonl")
    ask = ["ledger", "verify", str(file), "--trust", str(book.key), "--checkpoint", str(kept)]
    assert main(ask) == 0
    assert "goes on from the checkpoint of 8 entries" in capsys.readouterr().out
    file.write_text("".join(f"{line}\n" for line in book.lines[:-1]))
    assert main(ask[:-2]) == 0, "a shorter ledger holds together"
    assert main(ask) == 1
    assert "cut off" in capsys.readouterr().out


def test_an_earlier_checkpoint_of_another_past_is_refused(book: Book, tmp_path: Path) -> None:
    from pipeline.ledger.verification import expect_extends

    ledger = verify_lines(book.lines, None, "ledger")
    expect_extends(ledger, Checkpoint(3, ledger.roots[2]), "ledger")
    with pytest.raises(EvidenceError, match="after 3 entries"):
        expect_extends(ledger, Checkpoint(3, ledger.roots[3]), "ledger")


@pytest.mark.parametrize(
    ("text", "code"), [(None, 2), (b"\xff\xfe\n", 1), (b'{"entry":"cut off in the mid', 1), (b"[]\n", 1)]
)
def test_files_that_are_no_ledger(text: bytes | None, code: int, tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    if text is not None:
        file.write_bytes(text)
    assert main(["ledger", "verify", str(file)]) == code


def test_what_the_registry_itself_dated_back_is_found_out(book: Book) -> None:
    """Chain, tree and signatures hold: whoever has the key and the clock is found out by the order alone."""
    book.add("revoke", DAY - timedelta(days=5), "2", reason="as if it had been earlier")
    with pytest.raises(EvidenceError, match="a time not before"):
        verify_lines(book.lines, read_trusted(book.key), "ledger")


def test_entries_after_the_last_signature_are_not_vouched_for(book: Book) -> None:
    keys = read_trusted(book.key)
    line, signed = book.pairs[-1]
    bare = Checkpoint(signed.size, signed.root)
    middle = [*book.pairs[:3], (book.pairs[3][0], Checkpoint(4, book.pairs[3][1].root)), *book.pairs[4:]]
    assert len(verify_lines(list(export_lines(middle)), keys, "ledger").entries) == 8
    with pytest.raises(EvidenceError, match="all 8 entries below a signed checkpoint, got 7"):
        verify_lines(list(export_lines([*book.pairs[:-1], (line, bare)])), keys, "ledger")


def test_a_clock_that_went_back_dates_nothing_back() -> None:
    ahead = datetime.now(UTC) + timedelta(hours=1)
    entry = append(Head("ab" * 16, Frontier(), START, ahead), "open", "", "", {}, None)
    assert entry.at == ahead
    assert 3590 < entry.detail["clock_behind_seconds"] < 3610


def test_history_says_who_held_an_alias_when(book: Book) -> None:
    terms = terms_of(book.entries, "digits")
    assert [(term.version, term.since.day, term.until and term.until.day) for term in terms] == [
        ("1", 24, 25),
        ("2", 25, 26),
        ("1", 26, None),
    ]
    assert terms[2].reason == "a recall"
    assert terms[1].revoked is None
    assert terms[1].approvals == (("key2", "bob"),)
    assert terms[1].by == "ann"
    assert dict(terms[0].evidence) == DIGESTS
    assert terms_of(book.entries, "another") == []


@pytest.mark.parametrize("act", ["alias", "delete-alias"])
def test_a_term_ends_when_the_alias_moves_while_nothing_protects_it(act: str, book: Book) -> None:
    book.add(act, DAY + timedelta(days=10), "7", alias="other")
    assert terms_of(book.entries, "digits")[-1].until is None
    book.add(act, DAY + timedelta(days=11), "7", alias="production")
    assert terms_of(book.entries, "digits")[-1].until == DAY + timedelta(days=11)


@pytest.mark.parametrize(
    ("at", "want"),
    [("2026-11-23", []), ("2026-11-24", ["1"]), ("2026-11-25T11:59:59", ["1"]), ("2026-11-25", ["2"])],
)
def test_history_at_a_day_or_time(at: str, want: list[str], book: Book) -> None:
    assert [term.version for term in terms_of(book.entries, "digits", end_of(at))] == want


def test_history_as_of_a_day_knows_nothing_later(book: Book) -> None:
    (term,) = terms_of(book.entries, "digits", end_of("2026-11-26"))
    assert (term.version, term.revoked) == ("1", None)


def test_history_of_an_exported_ledger_is_offline(
    book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    file = book.write(tmp_path / "ledger.jsonl")
    ask = ["history", "digits", "--ledger", str(file)]
    assert main([*ask, "--at", "2026-11-25", "--json"]) == 0
    (term,) = json.loads(capsys.readouterr().out)
    assert (term["version"], term["by"], term["approvals"]) == ("2", "ann", [{"key": "key2", "by": "bob"}])
    assert main([*ask, "--at", "2026-11-01"]) == 1
    assert "no version of digits held a protected alias at 2026-11-01 23:59:59 UTC" in capsys.readouterr().out
    assert main([*ask, "--at", "yesterday"]) == 2


def test_a_day_is_a_day() -> None:
    with pytest.raises(InputError, match="expected a day or a time"):
        end_of("2026-13-01")
