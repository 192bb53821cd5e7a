# SPDX-License-Identifier: Apache-2.0
"""Checks of other distributions: found by entry point, loaded only if named, refused by name and distribution."""

import sys
import textwrap

import pytest

from checks.decision import Outcome, decide
from checks.errors import CheckError, PolicyError
from checks.finding import Verdict
from checks.plugins import load_checks
from checks.policy import parse_policy
from checks.protocol import built_in_checks, metrics_of
from pipeline.policy_file import load_policy

GOOD = """
    from checks.measurement import OVERALL, Measurement, Method
    from checks.protocol import Metric

    class Check:
        name = "extra"
        metrics = {"extra_count": Metric(Method.EXACT_VALUE)}

        def measure(self, evidence):
            n = len(evidence.examples.ids)
            return [Measurement("extra_count", OVERALL, n, None, n, "count", Method.EXACT_VALUE)]
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution of one module into a folder of its own on the path, as pip lays it out."""
    modules = []

    def installer(distribution, source, *, name="extra", target="Check"):
        site = tmp_path / f"{distribution}-site"
        module = f"plugin_{distribution.replace('-', '_')}_{len(modules)}"
        info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[leangate.checks]\n{name} = {module}:{target}\n")
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        monkeypatch.syspath_prepend(str(site))
        modules.append(module)
        return module

    yield installer
    for module in modules:
        sys.modules.pop(module, None)


def _load(*names):
    return load_checks(names, built_in_checks())


def test_a_check_that_a_policy_names_is_loaded_behind_the_built_in_ones(install):
    install("leangate-extra", GOOD)
    checks = _load("extra")
    assert [check.name for check in checks[:-1]] == [check.name for check in built_in_checks()]
    assert checks[-1].name == "extra"
    assert "extra_count" in metrics_of(checks)


def test_an_instance_is_as_good_as_a_class(install):
    install("leangate-extra", GOOD + "\n    instance = Check()\n", target="instance")
    assert _load("extra")[-1].name == "extra"


def test_what_no_policy_names_is_never_imported(install):
    module = install("leangate-extra", "raise RuntimeError('imported')")
    assert [check.name for check in _load()] == [check.name for check in built_in_checks()]
    assert module not in sys.modules


def test_a_check_nobody_brings_is_the_users_slip_and_lists_what_is_there(install):
    install("leangate-extra", GOOD)
    with pytest.raises(PolicyError, match=r"'extra'.*'other'") as caught:
        _load("other")
    assert caught.value.exit_code == 2
    assert caught.value.where == "policy.yaml checks"
    assert "install" in caught.value.hint


def test_one_name_in_two_distributions_names_both(install):
    install("leangate-extra", GOOD)
    install("leangate-rival", GOOD)
    with pytest.raises(CheckError, match=r"leangate-extra 1\.2 and leangate-rival 1\.2"):
        _load("extra")


@pytest.mark.parametrize(
    "source",
    [
        "raise RuntimeError('no licence')",
        "import a_module_nobody_has",
        "import sys\nsys.exit(0)",
        "def Check(:",
        "x = 1",
        "class Check:\n    def __init__(self, needed): ...",
        "class Check:\n    name = 'extra'",
        "class Check:\n    @property\n    def metrics(self):\n        raise ValueError('later')",
    ],
)
def test_a_check_that_cannot_be_loaded_names_its_distribution(install, source):
    install("leangate-extra", source)
    with pytest.raises(CheckError, match=r"'extra' of leangate-extra 1\.2") as caught:
        _load("extra")
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("old", "new", "came"),
    [
        ('name = "extra"', 'name = "other"', "other"),
        ('name = "extra"', "name = None", "None"),
        ("Metric(Method.EXACT_VALUE)", "Method.EXACT_VALUE", "exact_value"),
        ("Metric(Method.EXACT_VALUE)", "'exact_value'", "exact_value"),
        ('{"extra_count": Metric(Method.EXACT_VALUE)}', "{}", r"\{\}"),
        ('{"extra_count": Metric(Method.EXACT_VALUE)}', '["extra_count"]', "extra_count"),
        ("def measure(self, evidence)", "def look(self, evidence)", "measure"),
    ],
)
def test_a_check_that_breaks_the_protocol_names_its_distribution(install, old, new, came):
    assert old in GOOD
    install("leangate-extra", GOOD.replace(old, new, 1))
    with pytest.raises(CheckError, match=rf"'extra' of leangate-extra 1\.2.*{came}"):
        _load("extra")


@pytest.mark.parametrize(
    "metric", ["accuracy_change", "latency_ratio_b64", "latency_ratio_b*", "latency_ratio_b1*"]
)
def test_a_metric_that_is_taken_names_metric_and_distribution(install, metric):
    install("leangate-extra", GOOD.replace('"extra_count": M', f'"{metric}": M', 1))
    with pytest.raises(CheckError) as caught:
        _load("extra")
    assert metric in str(caught.value)
    assert "leangate-extra 1.2" in str(caught.value)


def test_a_metric_beside_a_numbered_one_is_free(install):
    install("leangate-extra", GOOD.replace("extra_count", "latency_ratio_bus"))
    assert _load("extra")[-1].name == "extra"


def test_a_pattern_that_takes_in_a_metric_of_another_plugin_is_taken(install):
    install("leangate-extra", GOOD)
    install(
        "leangate-wide",
        GOOD.replace("extra_count", "extra_count*").replace('"extra"', '"wide"'),
        name="wide",
    )
    _load("extra", "wide")  # `extra_count` has no number that the star could stand for
    install(
        "leangate-numbered",
        GOOD.replace("extra_count", "extra_count7").replace('"extra"', '"numbered"'),
        name="numbered",
    )
    for order in (("wide", "numbered"), ("numbered", "wide")):
        with pytest.raises(CheckError, match="extra_count"):
            _load(*order)


def test_a_built_in_name_is_taken_and_the_distribution_named(install):
    install("leangate-extra", GOOD.replace('"extra"', '"accuracy"'), name="accuracy")
    with pytest.raises(CheckError, match=r"'accuracy' of leangate-extra 1\.2"):
        _load("accuracy")


RULE = {"id": "many", "kind": "assert", "metric": "extra_count", "min": 900, "reason": "why"}
POLICY = {"version": 1, "name": "p", "alpha": 0.05, "alpha_fail": 0.05, "checks": ["extra"], "rules": [RULE]}


def test_its_metrics_are_judged_like_any_other(install, evidence):
    install("leangate-extra", GOOD)
    checks = _load("extra")
    policy = parse_policy(POLICY, metrics_of(checks))
    assert decide(checks, evidence(900), policy, alpha=policy.alpha).outcome is Outcome.PASSED
    assert decide(checks, evidence(899), policy, alpha=policy.alpha).outcome is Outcome.BLOCKED


def test_what_it_returns_undeclared_or_broken_is_an_error_and_never_a_pass(install, evidence):
    install("leangate-extra", GOOD.replace('Measurement("extra_count"', 'Measurement("accuracy_change"'))
    checks = _load("extra")
    decision = decide(checks, evidence(900), parse_policy(POLICY, metrics_of(checks)), alpha=0.05)
    assert decision.outcome is Outcome.ERROR
    assert decision.findings[0].verdict is Verdict.ERROR
    assert "check extra" in decision.findings[0].message


YAML = """
version: 1
name: p
alpha: 0.05
alpha_fail: 0.05
checks: {checks}
rules:
  - {{ id: many, kind: assert, metric: extra_count, min: 900, reason: why }}
"""


def test_a_policy_file_brings_the_checks_it_names(install, tmp_path):
    install("leangate-extra", GOOD)
    path = tmp_path / "policy.yaml"
    path.write_text(YAML.format(checks="[extra]"))
    file = load_policy(path)
    assert file.checks[-1].name == "extra"
    assert file.policy.checks == ("extra",)


@pytest.mark.parametrize(
    ("checks", "where"),
    [
        ("[extra, extra]", "policy.yaml.checks"),
        ("extra", "policy.yaml.checks"),
        ("[]", "policy.yaml.checks"),
        ("[7]", "policy.yaml.checks"),
        ("[absent]", "policy.yaml checks"),
    ],
)
def test_a_wrong_list_of_checks_is_the_users_slip(install, tmp_path, checks, where):
    install("leangate-extra", GOOD)
    path = tmp_path / "policy.yaml"
    path.write_text(YAML.format(checks=checks))
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert caught.value.exit_code == 2
    # A rule on a metric that only the missing check measures may be what is named instead.
    assert where in caught.value.where or "extra_count" in str(caught.value)
