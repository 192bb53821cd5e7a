# SPDX-License-Identifier: Apache-2.0
"""`attempts.jsonl`: numbers that follow from its lines, and every change but growth refused."""

from __future__ import annotations

import hashlib
import json

import pytest

from checks.attempts import expect_attempt, find_attempt, next_round, read_attempt, read_rounds
from checks.errors import EvidenceError
from checks.policy import Policy


def _sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


OLD, NEW = _sha("test split"), _sha("fresh test split")
POLICY = Policy("p", 0.05, 0.05, ())


def _enter(rounds, split, *names):
    entry = next_round(rounds, split, [_sha(name) for name in names], _sha("policy"))
    return rounds if entry is None else (*rounds, entry)


def _rounds():
    rounds = _enter((), OLD, "a", "b")
    rounds = _enter(rounds, OLD, "c", "a")  # a is known: free
    rounds = _enter(rounds, NEW, "a")
    return _enter(rounds, OLD, "d")


def _write(path, rounds):
    path.write_text("".join(f"{entry.line}\n" for entry in rounds))
    return path


def test_candidates_are_numbered_on_each_split_and_known_bytes_are_free():
    rounds = _rounds()
    numbers = {name: find_attempt(rounds, OLD, _sha(name)).number for name in "abcd"}
    assert numbers == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert find_attempt(rounds, NEW, _sha("a")).number == 1
    assert find_attempt(rounds, NEW, _sha("b")) is None
    assert next_round(rounds, OLD, [_sha("a"), _sha("d")], _sha("another policy")) is None
    assert next_round(rounds, OLD, [], _sha("policy")) is None


def test_what_is_granted_is_that_of_the_round_whatever_comes_later():
    early, late = _enter((), OLD, "a", "b"), _rounds()
    for rounds in (early, late):
        assert find_attempt(rounds, OLD, _sha("b")).alpha(POLICY) == pytest.approx(0.05 * 0.37995, rel=1e-4)
    assert find_attempt(late, OLD, _sha("d")).alpha(POLICY) == pytest.approx(0.05 * 0.607927 / 16, rel=1e-5)
    spent = [find_attempt(late, OLD, _sha(name)).alpha(POLICY) for name in "abcd"]
    assert sum(spent) == pytest.approx(0.05 * 0.607927 * (1 + 1 / 4 + 1 / 9 + 1 / 16), rel=1e-5)


def test_no_attempt_beyond_the_plan_may_err():
    plan = Policy("p", 0.05, 0.05, (), planned_attempts=3)
    rounds = _rounds()
    assert find_attempt(rounds, OLD, _sha("c")).alpha(plan) == 0.05 / 3
    with pytest.raises(EvidenceError, match="one of the 3 attempts .* got attempt 4") as caught:
        find_attempt(rounds, OLD, _sha("d")).alpha(plan)
    assert "fresh" in caught.value.hint


def test_the_file_is_read_back_and_every_line_names_the_one_before(tmp_path):
    path = _write(tmp_path / "attempts.jsonl", _rounds())
    assert read_rounds(path) == _rounds()
    lines = path.read_text().splitlines()
    # By hand: the digest of the bytes of the line before on the same split.
    assert json.loads(lines[1])["previous"] == hashlib.sha256(lines[0].encode()).hexdigest()
    assert json.loads(lines[2])["previous"] is None
    assert json.loads(lines[3])["previous"] == hashlib.sha256(lines[1].encode()).hexdigest()
    path.write_text(path.read_text().rstrip("\n"))  # an editor's whim
    assert read_rounds(path) == _rounds()
    path.write_text("")
    assert read_rounds(path) == ()


def _without(index):
    return lambda lines: lines[:index] + lines[index + 1 :]


def _edited(index, **changes):
    def change(lines):
        value = json.loads(lines[index]) | changes
        return [*lines[:index], json.dumps(value, sort_keys=True, separators=(",", ":")), *lines[index + 1 :]]

    return change


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (_without(0), 1),
        (_without(1), 3),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [*lines, lines[-1]], 5),
        (_edited(0, policy_sha256="0" * 64), 2),
        (_edited(0, candidates=[_sha("a")]), 2),
        (_edited(3, first=2), 4),
        (_edited(3, first=1, previous=None), 4),
        (_edited(3, candidates=[_sha("a")]), 4),
        (_edited(3, candidates=[]), 4),
        (_edited(3, candidates=[_sha("x"), _sha("x")]), 4),
        (_edited(3, candidates=["0" * 63]), 4),
        (_edited(3, first=True), 4),
        (_edited(3, schema="leangate/attempt/2"), 4),
        (_edited(3, more=1), 4),
        (lambda lines: [*lines[:3], lines[3].replace(",", ", ")], 4),
        (lambda lines: [*lines[:3], lines[3][:40]], 4),
        (lambda lines: [*lines, "<<<<<<< ours"], 5),
        (lambda lines: [*lines, ""], 5),
    ],
)
def test_anything_but_growth_is_refused_by_line(tmp_path, change, line):
    path = _write(tmp_path / "attempts.jsonl", _rounds())
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(EvidenceError) as caught:
        read_rounds(path)
    assert f"attempts.jsonl line {line}" in str(caught.value)


def test_a_missing_or_unreadable_file_starts_nothing_anew(tmp_path):
    with pytest.raises(EvidenceError, match="no such file") as caught:
        read_rounds(tmp_path / "attempts.jsonl")
    assert "version control" in caught.value.hint
    (tmp_path / "attempts.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(EvidenceError, match="lines of JSON"):
        read_rounds(tmp_path / "attempts.jsonl")


def _record(tmp_path, **changes):
    value = find_attempt(_rounds(), OLD, _sha("c")).to_json()
    path = tmp_path / "first.json"
    path.write_text(json.dumps(value | changes))
    return path


def test_a_record_carries_what_its_number_follows_from(tmp_path):
    attempt = read_attempt(_record(tmp_path))
    assert (attempt.number, attempt.shared, len(attempt.rounds)) == (3, (3, 3), 2)
    assert expect_attempt(attempt, test_sha256=OLD, candidate_sha256=_sha("c"), where="") is attempt


@pytest.mark.parametrize(
    "changes",
    [
        {"attempt": 1},
        {"attempt": True},
        {"candidate_sha256": _sha("a")},  # whose record ends with its own round
        {"candidate_sha256": _sha("z")},
        {"test_sha256": NEW},
        {"rounds": []},
        {"rounds": {}},
        {"schema": "leangate/attempts/2"},
        {"more": 1},
    ],
)
def test_a_record_that_does_not_follow_from_its_rounds_is_refused(tmp_path, changes):
    with pytest.raises(EvidenceError, match=r"first\.json"):
        read_attempt(_record(tmp_path, **changes))


def test_a_record_without_its_first_round_is_refused(tmp_path):
    rounds = find_attempt(_rounds(), OLD, _sha("c")).to_json()["rounds"]
    with pytest.raises(EvidenceError, match="line is missing|expected attempt 1"):
        read_attempt(_record(tmp_path, rounds=rounds[1:]))


def test_an_attempt_of_something_else_is_refused():
    attempt = find_attempt(_rounds(), OLD, _sha("c"))
    for came, asked, what in (
        (attempt, (OLD, _sha("d")), "the candidate"),
        (attempt, (NEW, _sha("c")), "the test split"),
        (None, (OLD, _sha("c")), "the candidate"),
    ):
        with pytest.raises(EvidenceError, match=what):
            expect_attempt(came, test_sha256=asked[0], candidate_sha256=asked[1], where="here")
