# SPDX-License-Identifier: Apache-2.0
"""What every metric means in plain words, and what to do where a rule on it fails."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Entry", "explain"]

_LESS = "compress less, or recover for longer"
_LOST = f"The loss is proven, so more data will not help: {_LESS}."
_BASELINE = "The baseline itself does not do what the policy asks: train a better one first."
_SMALLER = "Compress more: prune further."
_ATTACKS = "The attacks are not fit to judge by: "


@dataclass(frozen=True)
class Entry:
    """One metric, or several of a kind.

    Attributes:
        pattern: Of their names.
        meaning: What is measured.
        remedy: What to do where a rule on it fails.
    """

    pattern: str
    meaning: str
    remedy: str


_ENTRIES = (
    # decisions, against the baseline's on the same examples
    Entry("accuracy_change", "accuracy, candidate minus baseline", _LOST),
    Entry("robust_accuracy_change", "accuracy under all attacks, candidate minus baseline", _LOST),
    Entry(
        "recall_change",
        "share of a class's examples that are recognised, candidate minus baseline",
        f"The candidate misses more of this class: recover with more examples of it, {_LESS}.",
    ),
    Entry(
        "false_positive_rate_change",
        "share of the other classes' examples taken for this class, candidate minus baseline",
        "The candidate takes more of the other classes for this one: recover with more examples of what is "
        f"mistaken for it, {_LESS}.",
    ),
    Entry(
        "precision_change",
        "share of the decisions for this class that are right, candidate minus baseline",
        "More of the decisions for this class are wrong: recover with more examples of what is mistaken for "
        f"it, {_LESS}.",
    ),
    Entry(
        "macro_f1_change",
        "F1 averaged over the classes, candidate minus baseline",
        f"{_LOST[:-1]}; see the recall of each class for where it was lost.",
    ),
    Entry(
        "sensitivity_change",
        "share of the class's examples called at this operating point, candidate minus baseline",
        f"Fewer true cases are called at this threshold: {_LESS}. Another threshold may be set on data that "
        "no gate looks at, never on the test split.",
    ),
    Entry(
        "specificity_change",
        "share of all other examples rightly not called at this operating point, candidate minus baseline",
        f"More false alarms at this threshold: {_LESS}. Another threshold may be set on data that no gate "
        "looks at, never on the test split.",
    ),
    Entry(
        "brier_change",
        "rise of the Brier score, the squared error of the probabilities: above 0 is worse",
        "The probabilities became worse even where decisions did not: recover with distillation from the "
        f"baseline (recover.distill in params.yaml), {_LESS}.",
    ),
    # groups
    Entry(
        "[a-z_]+_change_gap",
        "how much more compression took from one level of an attribute than from another",
        "Compression moved harm onto one group: recover with more examples of that group, compress less, or "
        "prune less of the early layers.",
    ),
    Entry(
        "[a-z_]+_rate_gap|accuracy_gap",
        "difference of the candidate's rate between two levels of an attribute",
        "The candidate treats these groups differently. See the same rule's change gap: where compression "
        "added it, recover with more examples of the group that loses; where the baseline had it, the data "
        "or the training must change.",
    ),
    Entry(
        "[a-z_]+_rate_ratio|accuracy_ratio",
        "ratio of the candidate's rate between two levels of an attribute",
        "The candidate treats these groups differently. See the same rule's change gap: where compression "
        "added it, recover with more examples of the group that loses; where the baseline had it, the data "
        "or the training must change.",
    ),
    # flips
    Entry(
        "flip_rate",
        "share of examples that the candidate decides otherwise than the baseline",
        "Too many decisions changed, even where accuracy did not: recover with distillation from the "
        "baseline (recover.distill in params.yaml), or compress less; the flip exemplars show which.",
    ),
    Entry(
        "probability_shift",
        "mean distance between the candidate's and the baseline's probabilities (total variation)",
        "The candidate answers like another model, even where it decides alike: recover with distillation "
        "from the baseline (recover.distill in params.yaml), or compress less.",
    ),
    Entry(
        "loss_rate",
        "share of examples that the baseline decides rightly and the candidate does not",
        f"Too many right decisions were lost: {_LESS}; the flip exemplars show which.",
    ),
    Entry(
        "both_wrong_flip_rate",
        "share of examples that both decide wrongly and differently",
        "Errors changed their kind: recover with distillation from the baseline (recover.distill in "
        "params.yaml), or compress less.",
    ),
    Entry(
        "loss_concentration",
        "how many times likelier a right decision was lost within this slice than outside of it",
        "Losses gather in this slice: look at its flip exemplars, recover with more examples like them, and "
        "give the slice a rule on accuracy_change that the next test data can prove.",
    ),
    Entry(
        "flip_target_concentration",
        "share of the changed decisions that end in this class",
        "Changed decisions run to one class, as broken outputs and backdoors make them do: look at the flip "
        "exemplars and at how the last layer was pruned and quantised, and ship nothing before it is "
        "explained.",
    ),
    # the models by themselves
    Entry(
        "baseline_[a-z_]*(?:accuracy|recall|rate|sensitivity|specificity)",
        "the share that the metric's name says, of the baseline alone",
        _BASELINE,
    ),
    Entry(
        "candidate_robust_accuracy",
        "share of examples on which the candidate is right whatever attack of the pool is made",
        f"The candidate does not reach what the policy asks: {_LESS}, or start from a more robust baseline.",
    ),
    Entry(
        "candidate_attack_accuracy",
        "share of examples on which the candidate is right under this attack",
        f"The candidate does not reach what the policy asks: {_LESS}, or start from a more robust baseline.",
    ),
    Entry(
        "candidate_[a-z_]*(?:accuracy|recall|rate|sensitivity|specificity)",
        "the share that the metric's name says, of the candidate alone",
        f"The candidate does not reach what the policy asks: {_LESS}, or start from a better baseline.",
    ),
    # time, memory, size
    Entry(
        r"(?:candidate|baseline)_p99_ms_b[0-9*]+",
        "time that 99 of 100 calls stay below, in the slowest session",
        "One call in a hundred takes too long: try another recipe or precision, look for what else ran on "
        "the machine, or time on the hardware it is meant for.",
    ),
    Entry(
        r"latency_ratio_b[0-9*]+",
        "time of a call, candidate over baseline",
        "Fewer operations are not always faster: try another recipe or precision.",
    ),
    Entry(
        r"energy_ratio_b[0-9*]+",
        "energy of a call by the processor's own counters, candidate over baseline",
        "Fewer operations do not always take less energy: try another recipe or precision.",
    ),
    Entry(
        r"energy_proxy_ratio_b[0-9*]+",
        "processor time of a call, candidate over baseline: a proxy for energy, never judged",
        "",
    ),
    Entry(
        "peak_memory_ratio",
        "peak memory of a process that runs the model, candidate over baseline",
        "Most of a process is the runtime itself: try another recipe or precision, or a smaller batch.",
    ),
    Entry(
        "bytes_ratio",
        "size of the ONNX file, candidate over baseline",
        "Compress more: prune further, or quantise.",
    ),
    Entry("macs_ratio", "multiply-accumulates of an image, candidate over baseline", _SMALLER),
    Entry("parameters_ratio", "parameters, candidate over baseline", _SMALLER),
    Entry("(?:candidate|baseline)_(?:bytes|macs|parameters)", "cost of a model before it runs", _SMALLER),
    # is the evidence fit to be judged?
    Entry(
        "nonfinite_outputs",
        "scores that are no finite numbers",
        "The scores are broken: see under Lineage how this model was made.",
    ),
    Entry(
        "repeat_(?:disagreement|difference)",
        "the same call made twice",
        "The same call answers differently each time: look for random or stateful operators in the graph.",
    ),
    Entry(
        "batch_(?:disagreement|difference)",
        "an image alone against the same image in a batch",
        "The answer depends on what else is in the batch: look for normalisation over the batch, left by an "
        "export in training mode.",
    ),
    Entry(
        "thread_(?:disagreement|difference)",
        "one thread against two",
        "The answer depends on the number of threads: fix the number where it runs, or allow the difference "
        "in the policy and say why.",
    ),
    Entry(
        "optimization_(?:disagreement|difference)",
        "ONNX Runtime's levels of graph optimisation against each other",
        "Graph optimisation changes the answers: run at the level that was judged, or find the fusion that "
        "does it by switching levels one by one.",
    ),
    Entry(
        "framework_(?:disagreement|difference)",
        "the ONNX file against the network it was exported from",
        "The file does not compute what the network does: look at the export (evaluation mode, opset, "
        "quantisation nodes).",
    ),
    Entry(
        "provider_fallbacks",
        "models that ran on other execution providers than was declared",
        "ONNX Runtime fell back to another provider, so nothing measured here holds for the declared one: "
        "install it, or declare the one in use.",
    ),
    Entry(
        "attack_epsilon",
        "the attacks' budget: how far a pixel may move, as a share of the pixel range",
        "The attacks were made weaker than the policy asks: raise evaluate.attack.epsilon in params.yaml.",
    ),
    Entry(
        "attack_budget_used",
        "largest share of their budget that the attacks used",
        f"{_ATTACKS}they hardly moved a pixel; see evaluate.attack in params.yaml.",
    ),
    Entry(
        "attack_[a-z_]+",
        "attacked images that left the budget or the range of pixels",
        f"{_ATTACKS}see evaluate.attack in params.yaml.",
    ),
    Entry(
        "twin_disagreement",
        "share of examples that the twin which gradients come from decides otherwise than the file",
        f"{_ATTACKS}the twin their gradients come from decides otherwise.",
    ),
    Entry(
        "group_table_mismatch",
        "group accuracies computed twice, here and by fairlearn",
        "Two computations of one table disagree: run evaluate again, and look for a defect.",
    ),
)
_UNKNOWN = Entry("", "", "Read in the documentation of the check that measures it what to change.")


def explain(metric: str) -> Entry:
    """Return what is known of a metric; hardly anything of one from another distribution."""
    return next((entry for entry in _ENTRIES if re.fullmatch(entry.pattern, metric)), _UNKNOWN)
