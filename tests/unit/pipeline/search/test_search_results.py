# SPDX-License-Identifier: Apache-2.0
"""What is told of a search: the front, the winners, and the picture of them."""

import xml.etree.ElementTree as ET

import pytest

from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.search.picture import render_search
from pipeline.search.results import describe_passes, results_of
from pipeline.search.study import Entry
from tests.search_bench import params_of

SVG = "{http://www.w3.org/2000/svg}"
TRAIN = {"epochs": 2, "learning_rate": 0.001, "batch_size": 8, "weight_decay": 0.0, "label_smoothing": 0.0}
RECOVER = {"recover": TRAIN | {"max_shift": 0}}


def _cut(reduction, rungs=3):
    channels = {"macs_reduction": reduction, "criterion": "l1", "round_to": 1}
    return [{"channels": channels}, *[RECOVER] * rungs]


def _entry(slot, accuracy, size, *, state="finished", passes=None, precision="int8", rungs=3, sha=None):
    recipe = {"passes": _cut(2 + slot) if passes is None else passes, "precision": precision}
    values = ({"accuracy": accuracy, "bytes": float(size)},) * rungs
    lengths = (2, 3, 4)
    reason = "" if state == "finished" else "because"
    return Entry(slot, slot, 0, "me-0", state, reason, recipe, lengths, values, 1.5, sha or f"{slot:064d}")


class _Study:
    def __init__(self, *entries):
        self.entries = lambda: list(entries)


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.search.results.identity_of", lambda layout, params: {"data": "d"})
    baseline = {
        "validation_accuracy": 0.98,
        "validation_loss": 0.1,
        "bytes": 4000,
        "macs": 9,
        "sha256": "base",
    }
    monkeypatch.setattr("pipeline.search.results.read_record", lambda folder: baseline)

    def build(*entries, **changes):
        found = results_of(_Study(*entries), Layout(tmp_path), params_of(**changes))
        write_json(tmp_path / "trials.json", found)
        return found

    def of(params, entry):
        return results_of(_Study(entry), Layout(tmp_path), params)["trials"][0]

    build.of = of
    return build


def _marks(found):
    return {row["trial"]: (row["on_front"], row["winner"]) for row in found["trials"]}


def test_winners_are_new_good_enough_and_on_the_front(results):
    found = results(
        _entry(0, 0.98, 4000, passes=[], precision="fp32", sha="base"),
        _entry(1, 0.98, 1000, passes=[]),  # stands in params.yaml as dense at int8
        _entry(2, 0.97, 600),
        _entry(3, 0.97, 700),
        _entry(4, 0.90, 100),  # more than shortlist.max_accuracy_drop
        _entry(5, 0.965, 500),
        _entry(6, 0.0, 0, state="failed", rungs=0),
    )
    assert _marks(found) == {
        0: (False, None), 1: (True, None), 2: (True, "search_1"), 3: (False, None), 4: (True, None),
        5: (True, "search_2"), 6: (False, None),
    }  # fmt: skip
    assert found["states"] == {"finished": 6, "failed": 1}
    assert found["least_accuracy"] == pytest.approx(0.96)


def test_what_only_begins_like_a_name_of_ours_is_the_users(results):
    params = params_of()
    recipes = {**params.prune.recipes, "search_by_hand": ()}
    for name, won in (("search_by_hand", None), ("search_1", "search_1")):
        prune = params.prune.model_copy(update={"recipes": recipes | {name: ()}, "variants": (name,)})
        row = results.of(params.model_copy(update={"prune": prune}), _entry(1, 0.98, 1000, passes=[]))
        assert row["winner"] == won


def test_only_so_many_win(results):
    entries = [_entry(slot, 0.97 + slot / 1000, 500 + 100 * slot) for slot in range(5)]
    found = results(*entries, winners=2)
    assert sorted(filter(None, (row["winner"] for row in found["trials"]))) == ["search_1", "search_2"]


def test_what_was_dropped_on_its_way_is_the_recipe_so_far(results):
    found = results(_entry(0, 0.97, 900), _entry(1, 0.979, 500, state="dropped", rungs=1))
    row = found["trials"][1]
    assert row["winner"] == "search_1"
    assert row["recipe"]["passes"] == _cut(3, rungs=1)
    assert found["trials"][0]["on_front"] is False


def test_what_has_no_figures_is_on_no_front(results):
    found = results(_entry(0, 0.97, 900, state="running", rungs=1), _entry(1, 0, 0, state="dropped", rungs=0))
    assert not any(row["on_front"] for row in found["trials"])
    assert [row["objectives"] for row in found["trials"]] == [None, None]
    ET.fromstring(render_search(found))


def test_the_picture_has_a_dot_a_trial_and_is_escaped(results):
    entries = [_entry(slot, 0.97 + slot / 1000, 500 + 100 * slot) for slot in range(5)]
    found = results(*entries, _entry(5, 0, 0, state="failed", rungs=0))
    found["trials"][0]["recipe"]["precision"] = "<script>&\u202e"
    text = render_search(found)
    picture = ET.fromstring(text)
    hints = [title.text for title in picture.iter(f"{SVG}title")][1:]
    assert sum("trial" in hint for hint in hints) == 5
    assert "<script>" not in text
    assert "\u202e" not in text
    names = [node.text for node in picture.iter(f"{SVG}text")]
    assert any(name.startswith("search_1") for name in names if name)
    assert render_search(found) == text


def test_a_recipe_in_words():
    assert describe_passes({"passes": []}) == "the baseline as it is"
    assert describe_passes({}) == "not drawn"
    assert describe_passes({"passes": _cut(2.5)}) == "channels 1/2.5 by l1; 6 epochs at 0.001"
