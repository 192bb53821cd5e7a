# SPDX-License-Identifier: Apache-2.0
"""Evidence is read back as it was written, and whatever is missing, foreign or contradictory is refused."""

import json

import numpy as np
import pytest

from checks.contract_runs import RUNS
from checks.errors import EvidenceError
from checks.evidence import Providers, Subject, read_evidence

SUBJECT = Subject("a" * 64, "b" * 64, "c" * 64, "d" * 64)
CPU = ["CPUExecutionProvider"]
MODELS = ("baseline", "candidate")
TEST = "7" * 64


def _save(path, header, arrays):
    with path.open("wb") as file:
        np.savez(file, header=np.array(json.dumps(header)), **arrays)


def _tables(evidence):
    """Header and arrays of every table, as the stages write them."""
    every = SUBJECT.to_json()
    data = {"data_sha256": SUBJECT.data_sha256}
    timed = {name: digest for name, digest in every.items() if name != "data_sha256"}
    examples, attacks, timing = evidence.examples, evidence.attacks, evidence.timing
    tables = {
        "examples": (
            {"schema": "leangate/examples/1", "classes": list(examples.classes), "test_sha256": TEST, **data}
            | {"levels": {name: list(levels) for name, levels in examples.levels.items()}},
            {"ids": examples.ids, "units": examples.units, "labels": examples.labels}
            | {f"slice:{name}": column for name, column in examples.columns.items()},
        ),
        "contract": (
            {"schema": "leangate/contract/1", **every, "effort": {"examples": len(evidence.contract.ids)}},
            {"ids": evidence.contract.ids}
            | {f"{m}:{run}": getattr(evidence.contract, m)[run] for m in MODELS for run in RUNS},
        ),
        "attacks": (
            {"schema": "leangate/attacks/1", **every, "attacks": list(attacks.names)}
            | {"epsilon": attacks.epsilon, "twin_agreement": list(attacks.twin_agreement)}
            | {"effort": {"examples": len(attacks.ids)}},
            {name: getattr(attacks, name) for name in ("ids", "perturbation", "in_range")}
            | {f"{m}_correct": getattr(attacks, f"{m}_correct") for m in MODELS},
        ),
        "timing": (
            {"schema": "leangate/timing/1", **timed, "batch_sizes": list(timing.batch_sizes)}
            | {"energy_counters": list(timing.energy_counters)}
            | {"providers": dict.fromkeys(("declared", *MODELS, "control"), CPU)},
            {"control_ms": timing.control_ms}
            | {
                f"{m}_{what}": getattr(timing, f"{m}_{what}")
                for m in MODELS
                for what in ("ms", "calls_ms", "processor_s", "peak_bytes", "energy_uj")
                if getattr(timing, f"{m}_{what}") is not None
            },
        ),
    }
    for model in MODELS:
        scores = getattr(evidence, model)
        header = {"schema": "leangate/scores/1", **data, "code_sha256": SUBJECT.code_sha256}
        header |= {"model_sha256": getattr(SUBJECT, f"{model}_sha256"), "output": scores.output}
        header |= {"providers": {"declared": CPU, model: CPU}}
        tables[model] = (header, {"ids": scores.ids, "scores": scores.scores})
    return tables


class Written:
    """Evidence in a folder, which a test may spoil table by table."""

    def __init__(self, folder, evidence):
        self.folder, self.evidence, self.tables = folder, evidence, _tables(evidence)

    def read(self):
        for name, (header, arrays) in self.tables.items():
            _save(self.folder / f"{name}.npz", header, arrays)
        every = SUBJECT.to_json()
        (self.folder / "cost.json").write_text(
            json.dumps({"schema": "leangate/cost/1", **every, **self.evidence.cost})
        )
        (self.folder / "groups.json").write_text(
            json.dumps({"schema": "leangate/groups/1", **every, **self.evidence.groups})
        )
        return read_evidence(self.folder, self.folder, SUBJECT)

    def refused(self, match):
        with pytest.raises(EvidenceError, match=match) as caught:
            self.read()
        return str(caught.value)


@pytest.fixture
def write(tmp_path, evidence):
    """Write evidence on few examples; see the fixture `evidence`."""
    return lambda **options: Written(tmp_path, evidence(60, **options))


def test_everything_is_read_back(write):
    written = write(energy=0.5)
    want, came = written.evidence, written.read()
    assert came.subject == SUBJECT
    assert came.examples.test_sha256 == TEST
    assert came.examples.ids.tolist() == want.examples.ids.tolist()
    assert came.baseline.output == "logits"
    assert came.candidate.providers == Providers(tuple(CPU), tuple(CPU))
    assert set(came.contract.candidate) == set(RUNS)
    for run in RUNS:
        np.testing.assert_array_equal(came.contract.candidate[run], want.contract.candidate[run])
    for name in (f"{m}_{what}" for m in MODELS for what in ("ms", "calls_ms", "processor_s", "energy_uj")):
        np.testing.assert_array_equal(getattr(came.timing, name), getattr(want.timing, name))
    assert came.timing.energy_counters == ("package-0",)
    assert set(came.files) == {
        *("examples.npz", "baseline.npz", "candidate.npz", "contract.npz", "attacks.npz"),
        *("timing.npz", "cost.json", "groups.json"),
    }
    assert all(len(digest) == 64 for digest in came.files.values())


FIELDS = [
    *((model, name) for model in MODELS for name in ("output", "providers", "model_sha256", "code_sha256")),
    *(("contract", name) for name in SUBJECT.to_json()),
    *(("timing", name) for name in ("providers", "energy_counters", "batch_sizes", "code_sha256")),
]


@pytest.mark.parametrize(("table", "field"), FIELDS)
def test_a_header_without_a_field_is_refused_and_the_field_is_named(write, table, field):
    written = write()
    del written.tables[table][0][field]
    assert f"{table}.npz" in written.refused(f"expected '{field}' in the header")


@pytest.mark.parametrize("table", ["examples", "contract", "attacks", "timing", *MODELS])
def test_no_table_goes_without_one_of_its_arrays(write, table):
    for name in write().tables[table][1]:
        written = write()
        del written.tables[table][1][name]
        if not name.startswith("slice:"):
            written.refused(f"expected an array '{name}'")


@pytest.mark.parametrize(
    "providers",
    [CPU, {}, {"declared": CPU}, {"declared": [], "baseline": CPU}, {"declared": CPU, "baseline": "CPU"}],
    ids=repr,
)
def test_providers_must_say_what_was_declared_and_what_was_used(write, providers):
    written = write()
    written.tables["baseline"][0]["providers"] = providers
    written.refused("provider")


def test_providers_that_were_lost_are_evidence_not_an_error(write):
    written = write()
    written.tables["candidate"][0]["providers"] = {"declared": ["CUDAExecutionProvider"], "candidate": CPU}
    assert written.read().candidate.providers.fell_back


@pytest.mark.parametrize("output", ["softmax", None, 1, ["logits"]])
def test_an_output_nobody_knows_is_refused(write, output):
    written = write()
    written.tables["baseline"][0]["output"] = output
    written.refused("logits.*probabilities")


def _as_probabilities(written):
    for model in MODELS:
        header, arrays = written.tables[model]
        header["output"] = "probabilities"
        odds = np.exp(arrays["scores"])
        arrays["scores"] = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return written


def test_probabilities_are_read(write):
    came = _as_probabilities(write()).read()
    assert came.baseline.output == came.candidate.output == "probabilities"


def test_two_models_must_answer_the_same(write):
    written = _as_probabilities(write())
    written.tables["candidate"] = write().tables["candidate"]
    assert "candidate.npz" in written.refused("expected probabilities, as of the baseline, got logits")


@pytest.mark.parametrize(
    ("row", "total"),
    [
        ([0.5, 0.5, 0.002, 0], "1.002"),
        ([0.5, 0.4, 0, 0], "0.9"),
        ([1.5, -0.5, 0, 0], "1"),
        ([9, 1, 0, 0], "10"),
        ([0.8, 0.4, -0.2, 0], "1"),
    ],
)
def test_what_is_called_a_probability_and_is_none_is_refused_by_row_and_sum(write, row, total):
    written = _as_probabilities(write())
    written.tables["candidate"][1]["scores"][7] = row
    written.tables["candidate"][1]["scores"][9] = row
    message = written.refused("expected probabilities")
    assert "candidate.npz" in message
    assert "x00007 and 1 more" in message
    assert f"sum to {total} for" in message


def test_rounding_and_rows_that_are_not_finite_are_no_error(write):
    written = _as_probabilities(write())
    scores = written.tables["candidate"][1]["scores"]
    scores[3] = [0.5, 0.4995, 0, 0]
    scores[4] = [np.nan, 1, 0, 0]
    scores[5] = [np.inf, -1, 0, 0]
    assert np.isnan(written.read().candidate.scores[4, 0])


def test_contract_scores_are_of_the_same_examples_and_classes(write):
    written = write()
    written.tables["contract"][1]["candidate:twin"] = np.zeros((60, 3), np.float32)
    written.refused("candidate:twin")
    written = write()
    written.tables["contract"][1]["ids"][1] = written.tables["contract"][1]["ids"][0]
    written.refused("unique ids")


def test_medians_that_are_not_those_of_the_calls_are_refused(write):
    for model in MODELS:
        written = write()
        written.tables["timing"][1][f"{model}_calls_ms"][0, 3, 2] *= 1.001
        written.refused(f"medians of '{model}_calls_ms'")


SPOILED = {
    "baseline_calls_ms": lambda calls: np.concatenate([calls, calls, calls], axis=3),
    "candidate_calls_ms": lambda calls: np.where(calls == calls.max(), np.nan, calls),
    "baseline_processor_s": lambda seconds: -seconds,
    "candidate_processor_s": lambda seconds: seconds * np.inf,
    "baseline_energy_uj": lambda energy: energy - energy.max(),
    "candidate_energy_uj": lambda energy: energy.astype(float),
    "baseline_peak_bytes": np.zeros_like,
    "candidate_peak_bytes": lambda peaks: peaks[1:],
    "control_ms": lambda times: times * 0,
}


@pytest.mark.parametrize("name", SPOILED)
def test_times_bytes_and_energy_out_of_range_are_refused(write, name):
    written = write(energy=0.5)
    written.tables["timing"][1][name] = SPOILED[name](written.tables["timing"][1][name])
    assert "timing.npz" in written.refused("expected")


def test_energy_without_counters_is_refused(write):
    written = write(energy=0.5)
    written.tables["timing"][0]["energy_counters"] = []
    written.refused("without energy counters")


@pytest.mark.parametrize("sizes", [[], [0], [1.0], [True], "64", [64, 64], None], ids=repr)
def test_batch_sizes_are_whole_numbers_each_once(write, sizes):
    written = write()
    written.tables["timing"][0]["batch_sizes"] = sizes
    written.refused("batch sizes")


@pytest.mark.parametrize("table", ["examples", "contract", "timing", "attacks", *MODELS])
def test_evidence_of_something_else_is_refused(write, table):
    for field in [name for name in write().tables[table][0] if name.endswith("sha256")]:
        written = write()
        if (
            field == "test_sha256"
        ):  # no part of the subject: the gate holds it against the data and the attempt
            continue
        written.tables[table][0][field] = "e" * 64
        assert "something else" in _hint(written)


def _hint(written):
    with pytest.raises(EvidenceError) as caught:
        written.read()
    return caught.value.hint


def test_a_control_that_ran_on_something_else_than_the_baseline_is_refused(write):
    written = write()
    header = written.tables["timing"][0]
    header["providers"] = {**header["providers"], "control": ["OtherExecutionProvider"]}
    written.refused("control")
