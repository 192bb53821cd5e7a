# SPDX-License-Identifier: Apache-2.0
"""`params.yaml`: every wrong key is named, and `dvc.yaml` uses nothing that is not typed there."""

import re

import pytest
from ruamel.yaml import YAML

from checks.errors import ParamsError
from pipeline.params import load_params
from pipeline.stages import STAGES


def _load(text):
    return YAML(typ="safe", pure=True).load(text)


def test_the_repositorys_params_are_read(repository):
    params = load_params(repository / "params.yaml")
    assert params.prune.recipes["dense"] == ()
    assert params.prune.recipes["half"][0].config.target == ("macs", 2.0)
    assert params.quantize.recipes["int8"].calibration == "minmax"
    assert sum(params.prepare.splits.model_dump().values()) == pytest.approx(1)
    assert params.prepare.splits.test == 0.5


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("seed: 0", "seed: -1", "seed"),
        ("seed: 0", "seed: 0.5", "seed"),
        ("seed: 0", "sede: 0", "sede"),
        ("seed: 0", "seed: 0\nseed: 1", "seed"),
        ("macs_reduction: 2.0", "macs_reduction: .nan", "prune.recipes.half[0].channels.macs_reduction"),
        ("macs_reduction: 2.0", "macs_reduction: 0.5", "prune.recipes.half[0].channels.macs_reduction"),
        ("macs_reduction: 2.0", "macs_reduction: two", "prune.recipes.half[0].channels.macs_reduction"),
        ("variants: [dense, half, third]", "variants: [dense, quarter]", "quarter"),
        ("variants: [dense, half, third]", "variants: [half, half]", "distinct"),
        ("variants: [dense, half, third]", "variants: []", "prune.variants"),
        ("test: 0.50", "test: 0.60", "prepare.splits"),
        ("precisions: [fp32, int8]", "precisions: [int4]", "int4"),
        ("method: static", "method: statik", "quantize.recipes.int8"),
        ("calibration: minmax", "calibration: maxmin", "quantize.recipes.int8.calibration"),
        ("epsilon: 0.05", "epsilon: 1.5", "evaluate.attack.epsilon"),
        ("slots: [first, second]", "slots: [first, first]", "shortlist"),
        ("slots: [first, second]", "slots: ['../../etc']", "shortlist.slots"),
        ("preference: [bytes, latency]", "preference: [accuracy]", "select.preference"),
        ("factory: examples/digits/net.py:digits_net", "factory: digits_net", "model.factory"),
        ("code: examples/digits/net.py", "code: pipeline", "model"),
        ("mean: [0.305]", "mean: [0.3, 0.3]", "model"),
        ("alias: challenger", "alias: 'a/b'", "register.alias"),
        ("validate:", "valdiate:", "validate"),
    ],
)
def test_wrong_params_are_refused_by_key(project, old, new, where):
    path = project / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert where in str(caught.value)
    assert "params.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("seed: 0", "sede: 0", "top level: unknown key `sede`, did you mean `seed`? known are "),
        (
            "macs_reduction: 2.0",
            "mac_reduction: 2.0",
            "half[0].channels: unknown key `mac_reduction`, did you ",
        ),
        (
            "- channels:",
            "- chanels:",
            "half[0]: unknown key `chanels`, did you mean `channels`? known are blocks",
        ),
        (
            "calibration: minmax",
            "calibraton: minmax",
            "int8: unknown key `calibraton`, did you mean `calibration`",
        ),
        (
            "method: static",
            "mode: static",
            "int8: expected a key `method`, one of none, fp16, weights, dynamic",
        ),
        ("method: static", "method: statik", "int8.method: expected one of none, fp16, weights"),
        ("method: static", "method: statik", "got 'statik', did you mean `static`?"),
        (
            "calibration: minmax",
            "calibration: minmix",
            "minmax, entropy, percentile, mse, got 'minmix', did you ",
        ),
        ("seed: 0", "seed: -1", "seed: expected at least 0, got -1"),
        ("seed: 0", "seed: x", "seed: expected a whole number, got 'x'"),
        ("slots: [first, second]", "slots: []", "shortlist.slots: expected at least 1 entries, got 0"),
        ("register:", "register: 3\nqqqqqq:", "top level: unknown key `qqqqqq`; known are "),
        (
            "search:",
            "search:\n  space: { precisions: [fp32, in8] }\nx:",
            "search.space.precisions: expected names in quantize.recipes",
        ),
        (
            "search:",
            "search:\n  space: { channels: { macs_reduction: [1, two] } }\nx:",
            "search.space.channels.macs_reduction[1]: expected a number, got 'two'",
        ),
    ],
)
def test_what_is_wrong_is_said_in_words_of_the_file(project, old, new, says):
    path = project / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1).split("\nx:")[0])
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert says in str(caught.value)
    for foreign in ("Extra inputs", "Field required", "Tuple", "discriminator", "Input should", "static.cal"):
        assert foreign not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("train", "train.epochs: expected at least 1 where model.weights names none"),
        ("recover", "prune.recipes.half[1].recover.epochs: expected at least 1, got 0"),
    ],
)
def test_training_for_no_epoch_is_refused(project, key, where):
    path = project / "params.yaml"
    text = path.read_text()
    path.write_text(re.sub(rf"({key}:\s*{{?\s*epochs:) \d+", r"\1 0", text, count=1))
    assert path.read_text() != text
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert where in str(caught.value)


def test_too_few_calibration_images_are_refused_before_anything_runs(project):
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("max_examples: 512", "max_examples: 31", 1))
    with pytest.raises(ParamsError, match=r"int8.max_examples: expected at least 32, got 31"):
        load_params(path)


def test_a_precision_the_search_does_not_know_is_named_by_its_key(project):
    path = project / "params.yaml"
    text = path.read_text().split("\nsearch:")[0]
    path.write_text(f"{text}\nsearch: {{ space: {{ baseline_precisions: [fp32, int88] }} }}\n")
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    assert "search.space.baseline_precisions: expected names in quantize.recipes" in str(caught.value)
    assert "got 'int88', did you mean `int8`?" in str(caught.value)
    assert "top level" not in str(caught.value)


_TRAINING = (
    "epochs: 1, batch_size: 32, learning_rate: 0.002, weight_decay: 0.0, label_smoothing: {}, max_shift: 1"
)
_RECOVER = f"{{ {_TRAINING.format('0.0')} }}"
_STUDENT = "student: { factory: examples/digits/net.py:digits_net }"
_FOURS = 'weights: { sparsity: 0.5, pattern: "2:4" }'
_CHANNELS = "channels: { macs_reduction: 2.0 }"


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ([_CHANNELS, _STUDENT, f"recover: {_RECOVER}"], r"half: expected student as the first pass.*\[1\]"),
        ([_STUDENT, _CHANNELS], "half: expected one of recover, iterate, gradual after student"),
        ([_FOURS, _CHANNELS], r"half: expected weights with pattern 2:4 after channels.*\[0\]"),
        (
            [
                f"iterate: {{ steps: 2, shrink: {{ {_FOURS} }}, recover: {_RECOVER} }}",
                f"gradual: {{ shrink: {{ neurons: {{ macs_reduction: 2.0 }} }}, recover: {_RECOVER} }}",
            ],
            "half: expected weights with pattern 2:4 after neurons",
        ),
        (
            [f"recover: {{ {_TRAINING.format('0.1')}, distill: {{ soft: 1.0 }} }}"],
            r"half\[0\].recover: expected label_smoothing 0.0 with distill.soft 1.0.*got 0.1",
        ),
    ],
)
def test_passes_that_undo_another_are_refused(project, recipe, says):
    path = project / "params.yaml"
    lines, kept = path.read_text().splitlines(), []
    # The first recipe with passes, `half`, gets these instead of its own.
    start = next(i for i, line in enumerate(lines) if line.strip() == "half:")
    end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith("      "))
    kept = [*lines[: start + 1], *(f"      - {entry}" for entry in recipe), *lines[end:]]
    path.write_text("\n".join(kept))
    with pytest.raises(ParamsError, match=says) as caught:
        load_params(path)
    assert "Value error" not in str(caught.value)


def test_orders_that_lose_nothing_are_taken(project):
    path = project / "params.yaml"
    text = path.read_text()
    old = f"- {_CHANNELS}"
    assert old in text
    path.write_text(text.replace(old, f"- {_CHANNELS}\n      - {_FOURS}", 1))
    assert [entry.method for entry in load_params(path).prune.recipes["half"]][:2] == ["channels", "weights"]


def test_a_percentile_without_its_calibration_is_refused(project):
    path = project / "params.yaml"
    path.write_text(
        path.read_text().replace("calibration: minmax", "calibration: minmax, percentile: 99.0", 1)
    )
    with pytest.raises(ParamsError, match=r"int8.*expected calibration percentile.*got minmax"):
        load_params(path)


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "a: !!python/object:os.system x", "\t- x: :"])
def test_what_is_no_params_file_is_refused(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError):
        load_params(path)


def test_a_missing_and_a_huge_file_are_refused(tmp_path):
    with pytest.raises(ParamsError, match="No such file"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: " + "x" * 2_000_000)
    with pytest.raises(ParamsError, match="at most"):
        load_params(tmp_path / "params.yaml")


def _flat(value, prefix=""):
    if isinstance(value, dict):
        for key, entry in value.items():
            yield f"{prefix}{key}"
            yield from _flat(entry, f"{prefix}{key}.")


def test_dvc_yaml_names_the_stages_and_only_typed_params(repository):
    text = (repository / "dvc.yaml").read_text()
    stages = _load(text)["stages"]
    assert list(stages) == list(STAGES)
    known = set(_flat(_load((repository / "params.yaml").read_text())))
    for name in re.findall(r"\$\{([a-z][^}]*)\}", text):
        assert name in known or name.startswith("item."), name
    for name, stage in stages.items():
        matrix = stage.get("matrix", {})
        assert tuple(matrix) == STAGES[name]
        flags = " ".join(f"--{key} ${{item.{key}}}" for key in matrix)
        assert stage["cmd"] == f"exec python -m pipeline {name} {flags}".strip()
        for entry in stage.get("params", []):
            assert entry.split(".${")[0] in known, entry
        code = f"pipeline/{name}.py"
        assert code in stage["deps"]


def test_every_stages_own_section_is_among_its_params(repository):
    stages = _load((repository / "dvc.yaml").read_text())["stages"]
    sections = set(_load((repository / "params.yaml").read_text())) & set(STAGES)
    for name in sections:
        assert any(entry.split(".")[0] == name for entry in stages[name]["params"]), name
