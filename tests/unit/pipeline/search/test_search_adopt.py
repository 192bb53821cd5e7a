# SPDX-License-Identifier: Apache-2.0
"""Winners in params.yaml: what was there stays, letter by letter; what is written is what was found."""

import pytest

from checks.errors import ParamsError
from pipeline.params import load_params
from pipeline.search.adopt import write_winners
from pipeline.search.space import same_passes

RECOVER = {
    "epochs": 3, "batch_size": 32, "learning_rate": 1e-05, "weight_decay": 0.0005, "label_smoothing": 0.05,
    "max_shift": 1, "distill": {"soft": 0.5, "temperature": 2.0},
}  # fmt: skip
ONE = {"passes": [{"channels": {"macs_reduction": 2.35}}, {"recover": RECOVER}], "precision": "int8"}
NONE = {"passes": [], "precision": "fp32"}


def _winners(path, **winners):
    write_winners(path, winners)
    return load_params(path)


def test_the_file_keeps_every_line_and_gains_the_recipes(project):
    path = project / "params.yaml"
    before, old = path.read_text().splitlines(), load_params(path)
    params = _winners(path, search_1=ONE, search_2=NONE)
    assert params.prune.variants == ("dense", "half", "third", "search_1", "search_2")
    assert same_passes(ONE["passes"], params.prune.recipes["search_1"])
    assert params.prune.recipes["search_2"] == ()
    assert params.prune.recipes["search_1"][1].recover.learning_rate == 1e-05
    after = path.read_text().splitlines()
    lost = [line for line in before if line not in after]
    assert lost == ["  variants: [dense, half, third]"]
    assert params.train == old.train
    assert sorted(entry.name for entry in project.iterdir()) == [
        "attempts.jsonl",
        "dvc.yaml",
        "examples",
        "governance.yaml",
        "params.yaml",
        "policy.yaml",
    ]


def test_winners_of_an_earlier_search_go_and_the_rest_stays(project):
    path = project / "params.yaml"
    start = path.read_text()
    _winners(path, search_1=ONE, search_2=ONE)
    once = path.read_text()
    params = _winners(path, search_1=NONE)
    assert params.prune.variants == ("dense", "half", "third", "search_1")
    assert set(params.prune.recipes) == {"dense", "half", "third", "search_1"}
    _winners(path, search_1=ONE, search_2=ONE)
    assert path.read_text() == once
    assert [line for line in start.splitlines() if "#" in line] == [
        line for line in once.splitlines() if "#" in line
    ]


def test_a_precision_that_was_no_candidate_becomes_one(project):
    path = project / "params.yaml"
    path.write_text(
        path.read_text().replace("\n  precisions: [fp32, int8]", "\n  precisions:\n  - fp32 # as it is", 1)
    )
    params = _winners(path, search_1=ONE)
    assert params.quantize.precisions == ("fp32", "int8")
    assert "  - fp32 # as it is\n" in path.read_text()


@pytest.mark.parametrize("style", ["block", "flush"])
def test_other_styles_of_yaml_are_kept(project, style):
    path = project / "params.yaml"
    dash = "  - " if style == "flush" else "      - "
    text = path.read_text().replace(
        "  variants: [dense, half, third]\n",
        "  variants: # what is made\n" + "".join(f"{dash}{name}\n" for name in ("dense", "half", "third")),
    )
    path.write_text(text)
    params = _winners(path, search_1=ONE)
    assert params.prune.variants[-1] == "search_1"
    after = path.read_text().splitlines()
    assert [line for line in text.splitlines() if line not in after] == []
    assert f"{dash}search_1" in after


def test_a_file_whose_blanks_cannot_be_kept_keeps_its_comments(project):
    path = project / "params.yaml"
    text = (
        path.read_text()
        .replace("      - channels", "    - channels")
        .replace("      - recover", "    - recover")
    )
    path.write_text(text)
    params = _winners(path, search_1=ONE)
    assert same_passes(ONE["passes"], params.prune.recipes["search_1"])
    comments = [line.partition("#")[2] for line in text.splitlines() if "#" in line]
    assert comments == [line.partition("#")[2] for line in path.read_text().splitlines() if "#" in line]


def test_a_file_that_would_say_something_else_is_left_alone(project, monkeypatch):
    path = project / "params.yaml"
    text = path.read_text()
    monkeypatch.setattr(
        "pipeline.search.adopt._changed", lambda old, winners: old.replace("epochs: 24", "epochs: 25")
    )
    with pytest.raises(ParamsError, match="says something else"):
        write_winners(path, {"search_1": ONE})
    assert path.read_text() == text


def test_a_recipe_that_is_none_is_never_written(project):
    path = project / "params.yaml"
    text = path.read_text()
    with pytest.raises(ParamsError, match="macs_reduction"):
        write_winners(
            path, {"search_1": {"passes": [{"channels": {"macs_reduction": 0.5}}], "precision": "int8"}}
        )
    assert path.read_text() == text
