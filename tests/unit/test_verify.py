# SPDX-License-Identifier: Apache-2.0
"""verify: what was changed in a bundle, anywhere and however well the digests were mended, is found."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from checks.canonical import dumps, sha256_file
from checks.errors import EvidenceError, LeanGateError
from leangate.cli import main
from pipeline.card.contents import DOCUMENTS, with_digest
from pipeline.verification import verify_bundle
from tests.bundle_project import build_project, judge_project, project_params

ROOT = Path(__file__).resolve().parents[2]
stage = importlib.import_module("pipeline.bundle")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    layout = build_project(tmp_path_factory.mktemp("verified"))
    judge_project(layout)
    stage.run(layout, project_params())
    return layout.bundle


@pytest.fixture
def bundle(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def _edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    # With its own digest mended as well: what is found is found behind it.
    path.write_text(dumps(with_digest(value) if path.name == "bundle.json" else value))


def _mend(bundle):
    """Give every file the digest it has now, as somebody would who knows how."""
    decision = sha256_file(bundle / "decision.json")
    _edit(bundle / "records" / "verdict.json", lambda value: value.update(decision_sha256=decision))

    def name_again(manifest):
        manifest["decision_sha256"] = decision
        for name in manifest["files"]:
            path = bundle / name
            manifest["files"][name] = {"sha256": sha256_file(path), "bytes": path.stat().st_size}

    _edit(bundle / "bundle.json", name_again)


def test_a_bundle_as_it_was_made_is_verified_step_by_step(original, capsys):
    names = [step.name for step in verify_bundle(original)]
    assert names == ["files", "subject", "verdicts", "documents", "signatures"]
    assert main(["verify", str(original)]) == 0
    said = capsys.readouterr().out
    assert said.rstrip().endswith("verified")
    assert sha256_file(original / "model.onnx") in said
    assert main(["verify", str(original), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is True


def test_any_byte_that_changes_is_found(bundle):
    rng = np.random.default_rng(0)
    files = [path for path in sorted(bundle.rglob("*")) if path.is_file() and path.name != "bundle.json"]
    for path in [*files, *(files[index] for index in rng.integers(len(files), size=100))]:
        data = bytearray(path.read_bytes())
        place = int(rng.integers(len(data)))
        data[place] ^= 1 << int(rng.integers(8))
        kept = path.read_bytes()
        path.write_bytes(bytes(data))
        with pytest.raises(LeanGateError):
            list(verify_bundle(bundle))
        path.write_bytes(kept)
    assert len(list(verify_bundle(bundle))) == 5


def _better(value):
    entry = next(finding for finding in value["findings"] if finding["rule"] == "overall")
    entry["value"] = 0.25


def _fewer_examples(value):
    value["measurements"][0]["n"] += 1


def _other_alpha(value):
    value["alpha_each"] = 0.05


def _without_a_finding(value):
    value["findings"].pop()


def _another_flip(value):
    value["most_changed"] = [{"id": "digit-0001"}]


@pytest.mark.parametrize(
    "change", [_better, _fewer_examples, _other_alpha, _without_a_finding, _another_flip]
)
def test_a_decision_that_does_not_follow_from_the_evidence_is_found(bundle, change, capsys):
    _edit(bundle / "decision.json", change)
    _mend(bundle)
    with pytest.raises(EvidenceError, match="expected what follows from the evidence"):
        list(verify_bundle(bundle))
    assert main(["verify", str(bundle)]) == 1
    said = capsys.readouterr().out
    assert "NOT verified" in said
    assert "decision.json" in said


def test_evidence_that_was_changed_with_every_digest_mended_changes_the_verdicts(bundle):
    path = bundle / "evidence" / "candidate.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["scores"] = arrays["scores"].copy()
    arrays["scores"][:9] = np.roll(arrays["scores"][:9], 1, axis=1)
    np.savez(path, **arrays)
    _edit(
        bundle / "decision.json", lambda value: value["evidence"].update({"candidate.npz": sha256_file(path)})
    )
    _mend(bundle)
    with pytest.raises(EvidenceError):
        list(verify_bundle(bundle))


def _earlier(value):
    value["candidate_sha256"], value["rounds"][0]["candidates"] = (
        value["rounds"][0]["candidates"][0],
        value["rounds"][0]["candidates"][:1],
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_earlier, "decision"),  # alone in its run, so with more of alpha
        (lambda value: value.update(attempt=2), "attempts.json"),
        (lambda value: value.update(test_sha256="5" * 64), "attempts.json"),
        (lambda value: value["rounds"][0].update(test_sha256="5" * 64), "attempts.json"),
    ],
)
def test_a_count_of_attempts_that_is_not_the_decisions_is_found(bundle, change, message):
    _edit(bundle / "records" / "attempts.json", change)
    _mend(bundle)
    with pytest.raises(EvidenceError, match=message):
        list(verify_bundle(bundle))


def test_the_card_says_which_attempt_it_was(bundle):
    card = " ".join((bundle / "MODEL_CARD.md").read_text().split())
    assert "attempt 1 on this test split" in card
    assert "0.019" in card


def test_costs_that_are_not_those_of_the_files_are_found(bundle):
    path = bundle / "evidence" / "cost.json"
    _edit(path, lambda value: value["candidate"].update(macs=value["candidate"]["macs"] // 2))
    _edit(
        bundle / "decision.json",
        lambda value: value["evidence"].update({"cost.json": sha256_file(path)}),
    )
    _mend(bundle)
    with pytest.raises(EvidenceError, match=r"cost\.json candidate: expected"):
        list(verify_bundle(bundle))


def test_a_file_too_many_and_one_too_few_are_named(bundle):
    (bundle / "notes.txt").write_text("more")
    with pytest.raises(EvidenceError, match=r"also \['notes\.txt'\]"):
        list(verify_bundle(bundle))
    (bundle / "notes.txt").unlink()
    (bundle / "records" / "verdict.json").unlink()
    with pytest.raises(EvidenceError, match=r"no \['records/verdict\.json'\]"):
        list(verify_bundle(bundle))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_with_another_figure_is_found(bundle, name):
    path = bundle / name
    said = path.read_text()
    # The last figure of each: an accuracy, a count or a digest, whatever stands there.
    place = max(place for place, sign in enumerate(said) if sign.isdigit())
    path.write_text(said[:place] + str((int(said[place]) + 1) % 10) + said[place + 1 :])
    _mend(bundle)
    with pytest.raises(EvidenceError, match="expected the text that follows") as caught:
        list(verify_bundle(bundle))
    assert name in str(caught.value)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_that_is_missing_is_found(bundle, name):
    (bundle / name).unlink()
    _edit(bundle / "bundle.json", lambda value: value["files"].pop(name))
    with pytest.raises(EvidenceError, match="expected a document, got none"):
        list(verify_bundle(bundle))


def test_what_people_declared_cannot_be_changed_afterwards(bundle):
    path = bundle / "governance.yaml"
    path.write_text(path.read_text().replace('name: ""', 'name: "Somebody else"'))
    _mend(bundle)
    with pytest.raises(EvidenceError, match="expected the text that follows"):
        list(verify_bundle(bundle))
    path.write_text("title: [a, list]")
    _mend(bundle)
    with pytest.raises(EvidenceError, match=r"governance\.yaml: title"):
        list(verify_bundle(bundle))


def test_the_words_of_another_version_are_not_compared_and_not_verified(bundle, capsys):
    _edit(bundle / "bundle.json", lambda value: value["environment"].update(leangate="0.0.1"))
    _edit(bundle / "decision.json", lambda value: value["findings"][0].update(message="Worded otherwise."))
    _mend(bundle)
    # Anybody can write another version's number there: not compared is not verified.
    (bundle / "MODEL_CARD.md").write_text("Complies with everything.")
    _mend(bundle)
    steps = {step.name: step for step in verify_bundle(bundle)}
    assert "not compared" in steps["documents"].said
    assert steps["documents"].state == "unchecked"
    assert main(["verify", str(bundle)]) == 4
    assert "NOT verified: not all of it could be checked" in capsys.readouterr().out
    assert main(["verify", str(bundle), "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["verified"] is False
    _edit(bundle / "decision.json", lambda value: value["findings"][0].update(verdict="NO-FINDING"))
    _mend(bundle)
    with pytest.raises(EvidenceError):
        list(verify_bundle(bundle))


def _link(bundle):
    path = bundle / "policy.yaml"
    elsewhere = bundle.parent / "policy.yaml"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _folder_link(bundle):
    (bundle / "evidence").rename(bundle.parent / "evidence")
    (bundle / "evidence").symlink_to(bundle.parent / "evidence")


def _named_above(bundle):
    (bundle.parent / "x").write_text("x")
    entry = {"sha256": sha256_file(bundle.parent / "x"), "bytes": 1}
    _edit(bundle / "bundle.json", lambda value: value["files"].update({"../x": entry}))


def _one_more(bundle):
    (bundle / "notes.txt").write_text("more")


def _pipe(bundle):
    os.mkfifo(bundle / "evidence" / "more.npz")


def _twice(bundle):
    path = bundle / "bundle.json"
    path.write_text(path.read_text().replace("{", '{"schema": "leangate/bundle/2", ', 1))


def _not_a_number(bundle):
    path = bundle / "bundle.json"
    path.write_text(path.read_text().replace('"bytes":', '"bytes": NaN, "was":', 1))


def _cut(bundle):
    path = bundle / "evidence" / "examples.npz"
    path.write_bytes(path.read_bytes()[:1000])


def _other_passes(bundle):
    _edit(bundle / "bundle.json", lambda value: value["passes"].pop())


def _other_slot(bundle):
    _edit(bundle / "bundle.json", lambda value: value.update(slot="second"))


def _nothing_declared(bundle):
    (bundle / "governance.yaml").write_text("purpos: slip")
    _mend(bundle)


@pytest.mark.parametrize(
    "change",
    [
        *(_link, _folder_link, _named_above, _one_more, _pipe, _twice, _not_a_number, _cut),
        *(_nothing_declared, _other_passes, _other_slot),
    ],
)
def test_what_is_no_bundle_any_more_is_one_sentence(bundle, change, capsys):
    change(bundle)
    assert main(["verify", str(bundle)]) == 1
    said = capsys.readouterr()
    assert "NOT verified" in said.out
    assert "Traceback" not in said.out + said.err


def test_no_bundle_is_wrong_use(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 2
    assert "expected a bundle" in capsys.readouterr().err


def test_nothing_heavy_is_needed(original):
    script = (
        "import sys\n"
        "heavy = ('torch', 'onnxruntime', 'onnx', 'mlflow', 'dvc', 'art', 'pandas', 'pyarrow', 'fairlearn', 'sklearn')\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in heavy: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import socket\n"
        "def no(*_, **__): raise OSError('no network')\n"
        "socket.socket.connect = no\n"
        "from leangate.cli import main\n"
        "sys.exit(main(['verify', sys.argv[1]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(original)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
