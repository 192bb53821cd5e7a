# SPDX-License-Identifier: Apache-2.0
"""A search ends in the same trials however often it dies, and no trial's failure ends it."""

import contextlib
import sqlite3
import time

import optuna
import pytest

from checks.errors import InputError, ParamsError, StorageError
from pipeline.search.changes import describe_changes
from pipeline.search.run import settings_of
from pipeline.search.study import open_study
from tests.search_bench import IDENTITY, Formula, params_of, refuse, run_search


class Killed(BaseException):
    """Nothing of the project's catches it."""


def _facts(entries):
    return [
        (
            entry.slot,
            entry.bracket,
            entry.state,
            entry.reason,
            entry.recipe,
            entry.rungs,
            entry.epochs,
            entry.sha256,
        )
        for entry in entries
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a search that nobody disturbs comes to."""
    entries, complete = run_search(tmp_path_factory.mktemp("whole"), params_of(), Formula())
    assert complete
    return _facts(entries)


def test_brackets_drop_half_at_each_rung(whole):
    trained = [facts for facts in whole if facts[4]["passes"]]
    assert [facts[0] for facts in whole] == list(range(10))
    # Of the first four, two are the baseline itself and train nothing; then come four, then the last two.
    assert [facts[1] for facts in whole] == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    by_bracket = [[len(facts[5]) for facts in trained if facts[1] == bracket] for bracket in range(3)]
    assert [sorted(rungs) for rungs in by_bracket] == [[1, 3], [1, 1, 2, 3], [1, 3]]
    assert {facts[2] for facts in trained if len(facts[5]) == 3} == {"finished"}
    assert {facts[3] for facts in trained if len(facts[5]) == 2} == {
        "not in the better half after rung 2 of 3"
    }


def test_epochs_count_by_the_macs_they_cost(whole):
    for facts in whole:
        for index, epochs in enumerate([3, 3, 6][: len(facts[5])]):
            assert (index == 0 and not facts[4]["passes"]) or epochs
        if facts[4]["passes"]:
            reduction = facts[4]["passes"][0]["channels"]["macs_reduction"]
            assert facts[6] == pytest.approx(sum([3, 3, 6][: len(facts[5])]) / reduction)
        else:
            assert facts[6] == 0


@pytest.mark.parametrize("step", [10, 31, 65, 66])
def test_a_search_that_dies_at_any_write_goes_on_as_if_it_had_not(tmp_path, whole, monkeypatch, step):
    """Each write to the storage, and each telling, is a moment to die in; here it is the `step`-th."""
    left = [step]

    def dying(function):
        def wrapped(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return function(*arguments, **options)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(optuna.trial.Trial, "set_user_attr", dying(optuna.trial.Trial.set_user_attr))
        patch.setattr(optuna.study.Study, "tell", dying(optuna.study.Study.tell))
        with pytest.raises(Killed):
            run_search(tmp_path, params_of(), Formula())
    again, complete = run_search(tmp_path, params_of(), Formula(), resume=True)
    assert complete
    assert _facts(again) == whole


def test_what_was_measured_is_not_measured_again(tmp_path, whole):
    calls = []

    def hook(drawn, what):
        calls.append(what)
        if calls.count("measure") == 7:
            raise Killed

    with pytest.raises(Killed):
        run_search(tmp_path, params_of(), Formula(hook))
    before = calls.count("measure") - 1
    calls.clear()
    bench = Formula(lambda drawn, what: calls.append(what) if what == "measure" else None)
    again, _ = run_search(tmp_path, params_of(), bench, resume=True)
    assert _facts(again) == whole
    assert len(calls) == sum(len(facts[5]) for facts in whole) - before


def test_a_trial_that_kills_its_process_again_and_again_has_failed(tmp_path, whole, monkeypatch):
    dead = []
    write = optuna.trial.Trial.set_user_attr

    def hook(drawn, what):
        if what == "begin" and drawn.to_json() == whole[3][4]:
            dead.append(True)
            raise Killed

    def guarded(*arguments):
        if dead:  # the dead write no more
            raise Killed
        write(*arguments)

    monkeypatch.setattr(optuna.trial.Trial, "set_user_attr", guarded)
    for _ in range(3):
        dead.clear()
        with pytest.raises(Killed):
            run_search(tmp_path, params_of(), Formula(hook), resume=True)
    dead.clear()
    entries, complete = run_search(tmp_path, params_of(), Formula(hook), resume=True)
    assert complete
    assert (entries[3].state, entries[3].reason) == ("failed", "the process died in it again and again")
    assert not any(entry.state == "failed" for entry in entries if entry.slot != 3)


def test_a_trial_that_cannot_is_recorded_and_the_search_goes_on(tmp_path):
    entries, complete = run_search(tmp_path, params_of(), Formula(refuse))
    assert complete
    failed = [entry for entry in entries if entry.state == "failed"]
    assert failed
    assert {entry.reason for entry in failed} == {"channels: expected a gentler target"}
    assert all(entry.recipe["passes"][0]["channels"]["macs_reduction"] > 2 for entry in failed)
    assert any(entry.state == "finished" and entry.recipe["passes"] for entry in entries)


def test_what_costs_too_much_is_dropped_before_it_trains(tmp_path):
    bench = Formula()
    entries, _ = run_search(tmp_path, params_of(limits={"bytes": 100}), bench)
    assert {entry.state for entry in entries} == {"dropped"}
    assert bench.trained == 0
    assert all("above the limit 100" in entry.reason for entry in entries)


def test_the_same_recipe_is_tried_once(tmp_path):
    space = {"channels": {"macs_reduction": (2.0, 2.0), "round_to": (1,)}, "recover": {"epochs": (4,)}}
    space["recover"] |= {"learning_rate": (0.001, 0.001), "distill": (0.0,)}
    entries, _ = run_search(tmp_path, params_of(space=space, trials=6), Formula())
    twins = [entry for entry in entries if entry.reason.startswith("the same recipe as trial ")]
    assert len(twins) == 2
    assert not any(entry.rungs for entry in twins)


def test_the_budget_of_epochs_is_kept(tmp_path):
    entries, complete = run_search(tmp_path, params_of(budget={"epochs": 30.0}), Formula())
    spent = sum(entry.epochs for entry in entries)
    assert complete
    assert 0 < spent <= 30
    assert len(entries) < 10


@pytest.mark.parametrize(("epochs", "tried"), [(1.9, 1), (2.0, 2), (13.9, 2), (14.0, 3)])
def test_what_a_precision_trains_counts_against_the_budget(tmp_path, epochs, tried):
    """The baseline costs nothing in floats and two epochs as `taught`; a recipe may cost twelve."""
    space = {"recover": {"epochs": (12,)}, "precisions": ("fp32",), "baseline_precisions": ("fp32", "taught")}
    params = params_of(space=space, budget={"epochs": epochs}, trials=3)
    entries, complete = run_search(tmp_path, params, Formula())
    assert complete
    assert len(entries) == tried
    assert entries[0].epochs == 0
    assert all(entry.epochs == 2 for entry in entries[1:2])


def test_a_budget_is_kept_by_processes_together(tmp_path):
    def die(drawn, what):
        if what == "measure" and drawn.passes:
            raise Killed

    # A bracket of two untrained and two trained trials takes at most 3 + 3, 3 and 6 epochs.
    params = params_of(budget={"epochs": 30.0}, space={"recover": {"epochs": (12,)}})
    with pytest.raises(Killed):
        run_search(tmp_path, params, Formula(die))
    entries, complete = run_search(tmp_path, params, Formula(), resume=True, owner="another")
    assert complete
    others = [entry for entry in entries if entry.owner == "another-0"]
    assert others
    assert sum(entry.epochs for entry in others) <= 15
    entries, _ = run_search(tmp_path, params, Formula(), resume=True)
    assert sum(entry.epochs for entry in entries) <= 30


def test_minutes_that_are_over_leave_the_rest_for_another_call(tmp_path, whole):
    _, complete = run_search(tmp_path, params_of(), Formula(), deadline=time.monotonic() - 1)
    assert not complete
    again, complete = run_search(tmp_path, params_of(), Formula(), resume=True)
    assert complete
    assert _facts(again) == whole


def test_a_fault_of_all_trials_ends_the_search(tmp_path):
    def hook(drawn, what):
        raise StorageError("expected space, got none")

    with pytest.raises(StorageError, match="expected space"):
        run_search(tmp_path, params_of(), Formula(hook))

    def small(drawn, what):
        raise ParamsError("expected larger slices")

    with pytest.raises(ParamsError):
        run_search(tmp_path, params_of(), Formula(small), resume=True)


def test_a_storage_of_another_search_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'search.db'}"
    run_search(tmp_path, params_of(trials=2), Formula())
    with pytest.raises(InputError, match="expected no search yet, got one with 2 trials"):
        open_study(url, params_of(), IDENTITY, {}, resume=False)
    with pytest.raises(InputError, match="on other baseline, data") as caught:
        open_study(url, params_of(), IDENTITY | {"data": "0" * 64, "baseline": "1" * 64}, {}, resume=True)
    assert "remove artifacts/search" in caught.value.hint


def test_what_was_changed_since_is_named_with_old_and_new(tmp_path):
    url = f"sqlite:///{tmp_path / 'search.db'}"
    run_search(tmp_path, params_of(trials=2), Formula())
    other = IDENTITY | {"settings": "9" * 64}
    changed = params_of(trials=2, bracket=6, space={"recover": {"epochs": (4, 8)}, "precisions": ("fp32",)})
    with pytest.raises(InputError) as caught:
        open_study(url, changed, other, settings_of(changed), resume=True)
    for said in (
        (
            'got one on other settings: search.bracket was 4, is 6; search.space.precisions was null, is ["fp32"]; '
            "search.space.recover.epochs was null, is [4, 8]; "
        ),
        'quantize.recipes.int8.calibration was "minmax", is nothing; ',
        "; and 7 more",
    ):
        assert said in str(caught.value)
    changed = params_of(trials=2, bracket=6, space={"recover": {"epochs": (4, 8)}})
    with pytest.raises(InputError) as caught:
        open_study(url, changed, other, settings_of(changed), resume=True)
    assert "settings: search.bracket was 4, is 6; search.space.recover.epochs was null, is [4, 8]" in str(
        caught.value
    )
    with pytest.raises(InputError, match="on other data, got|on other data$") as caught:
        open_study(url, changed, IDENTITY | {"data": "0" * 64}, settings_of(changed), resume=True)
    assert "bracket" not in str(caught.value)


def test_settings_out_of_a_shared_database_are_shown_short_and_plain():
    said = describe_changes({"seed": "\x1b[31m" + "x" * 500}, {"seed": 1})
    assert said.startswith(": seed was ")
    assert said.endswith(", is 1")
    assert "\x1b" not in said
    assert len(said) < 150
    assert describe_changes(None, {"seed": 1}) == describe_changes({"seed": 1}, {"seed": 1}) == ""


@pytest.mark.parametrize("url", ["nonsense", "redis://localhost", "oracle+nothing://me:secret@there/x"])
def test_a_storage_that_is_none_is_refused_without_its_password(url):
    with pytest.raises(InputError, match="expected the address of a database") as caught:
        open_study(url, params_of(), IDENTITY, {}, resume=False)
    assert "secret" not in str(caught.value)


def test_a_database_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "search.db").write_text("this is no database, and long enough to be seen as such " * 50)
    with pytest.raises(StorageError, match="expected a database"):
        open_study(f"sqlite:///{tmp_path / 'search.db'}", params_of(), IDENTITY, {}, resume=True)


def test_a_database_that_breaks_on_the_way_is_named(tmp_path):
    def lose_tables(drawn, what):
        with contextlib.closing(sqlite3.connect(tmp_path / "search.db")) as connection:
            connection.execute("DROP TABLE IF EXISTS trial_user_attributes")

    with pytest.raises(StorageError, match=r"expected a database .* no such table") as caught:
        run_search(tmp_path, params_of(), Formula(lose_tables))
    assert "search.db" in str(caught.value)
