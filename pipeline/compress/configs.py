# SPDX-License-Identifier: Apache-2.0
"""Options of every pass on a network, as they stand in `params.yaml`; nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.sections import Section, Training

__all__ = [
    "KINDS",
    "Adversarial",
    "Blocks",
    "Channels",
    "Distill",
    "Gradual",
    "Iterate",
    "Kinds",
    "Layers",
    "LowRank",
    "Neurons",
    "Pass",
    "PruneRecipe",
    "Recover",
    "Student",
    "Targeted",
    "Weights",
]

Criterion = Annotated[
    str,
    Field(
        pattern=r"^(l1|l2|batchnorm|taylor|random|[a-z0-9_.-]+/[a-z0-9_]+)$",
        description="which channels or weights matter: l1, l2, batchnorm, taylor, random, or `package/name`",
    ),
]
Scope = Literal["global", "layer", "sensitivity"]
Reduction = Annotated[float | None, Field(default=None, ge=1, le=1_000)]
Kinds = Annotated[tuple[Literal["linear", "pointwise", "spatial"], ...], Field(min_length=1)]
KINDS: Kinds = ("linear", "pointwise", "spatial")
Layers = Annotated[tuple[str, ...], Field(default=(), description="names of layers that stay as they are")]


class Targeted(Section):
    """A pass that shrinks to a target, counted against the baseline: exactly one is named.

    A reduction of 2 halves; 1 leaves everything as it is.
    """

    macs_reduction: Reduction = None
    parameters_reduction: Reduction = None
    bytes_reduction: Reduction = None
    latency_reduction: Reduction = None

    @property
    def target(self) -> tuple[str, float]:
        """What is reduced (`macs`, `parameters`, `bytes` or `latency`), and by how much."""
        for name in ("macs", "parameters", "bytes", "latency"):
            value = getattr(self, f"{name}_reduction")
            if value is not None:
                return name, float(value)
        raise AssertionError("validated: one target is named")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        named = [name for name in Targeted.model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"expected one of {', '.join(Targeted.model_fields)}, got {named or 'none'}")
        return self


class Channels(Targeted):
    """channels: whole channels of convolutions and linear layers are removed."""

    criterion: Criterion = "taylor"
    scope: Scope = Field(
        default="global",
        description="global ranks all channels together, layer cuts every layer alike, sensitivity spends "
        "the budget where the loss suffers least",
    )
    round_to: int = Field(default=1, ge=1, le=64, description="channel counts are multiples of it")
    max_ratio: float = Field(default=0.9, gt=0, lt=1, description="of any one layer's channels")
    skip: Layers = ()


class Neurons(Targeted):
    """neurons: outputs of hidden linear layers are removed."""

    criterion: Criterion = "taylor"
    scope: Scope = "global"
    max_ratio: float = Field(default=0.9, gt=0, lt=1)
    skip: Layers = ()


class Blocks(Section):
    """blocks: residual blocks whose input and output have one shape are removed whole."""

    remove: int = Field(ge=1, le=1_000, description="how many")
    criterion: Literal["loss", "similarity"] = Field(
        default="loss",
        description="loss: whose absence raises the loss least; similarity: whose output is most like "
        "its input",
    )
    skip: Layers = ()


class Weights(Section):
    """weights: single weights are set to zero, and stay zero."""

    sparsity: float = Field(gt=0, lt=1, description="share of zeros; 0.5 with pattern 2:4")
    pattern: Literal["none", "2:4"] = "none"
    scope: Literal["global", "layer"] = "global"
    criterion: Literal["l1", "l2", "taylor", "random"] = Field(
        default="l1", description="l2 ranks single weights as l1 does"
    )
    skip: Layers = ()

    @model_validator(mode="after")
    def _pattern_fits(self) -> Self:
        if self.pattern == "2:4" and self.sparsity != 0.5:
            raise ValueError(f"expected sparsity 0.5 with pattern 2:4, got {self.sparsity:g}")
        return self


class LowRank(Section):
    """low_rank: a layer becomes two thinner ones in a row."""

    energy: float | None = Field(
        default=None, gt=0, lt=1, description="share of the squared singular values kept"
    )
    macs_reduction: Reduction = None
    parameters_reduction: Reduction = None
    kinds: Kinds = KINDS
    skip: Layers = ()

    @property
    def target(self) -> tuple[str, float] | None:
        """What is reduced (`macs` or `parameters`), and by how much; None where energy says it."""
        for name in ("macs", "parameters"):
            value = getattr(self, f"{name}_reduction")
            if value is not None:
                return name, float(value)
        return None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        rules = ("energy", "macs_reduction", "parameters_reduction")
        named = [name for name in rules if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"expected one of {', '.join(rules)}, got {named or 'none'}")
        return self


class Distill(Section):
    """How much of the loss is the teacher's; the teacher is the baseline."""

    soft: float = Field(default=1.0, ge=0, le=1, description="share of soft targets; the rest is labels")
    temperature: float = Field(default=2.0, gt=0, le=100)
    logits: float = Field(default=0.0, ge=0, le=1_000, description="weight of the squared error of logits")
    features: float = Field(
        default=0.0,
        ge=0,
        le=1_000,
        description="weight of the squared error of feature maps; of their maps of attention where "
        "the numbers of channels differ",
    )
    layers: tuple[str, ...] = Field(
        default=(), description="whose outputs are matched; named in both networks"
    )

    @model_validator(mode="after")
    def _layers_for_features(self) -> Self:
        if (self.features > 0) != bool(self.layers):
            raise ValueError("expected layers together with features, or neither")
        return self


class Adversarial(Section):
    """Adversarial training by projected gradient descent (Madry et al. 2018, arXiv:1706.06083)."""

    epsilon: float = Field(gt=0, le=1, description="L-infinity budget, share of the pixel range")
    steps: int = Field(ge=1, le=1_000)
    share: float = Field(default=1.0, gt=0, le=1, description="of each batch that is attacked")


class Recover(Training):
    """recover: training after a pass, from labels, from the baseline's answers, or under attack."""

    epochs: int = Field(ge=1, le=10_000)
    distill: Distill | None = None
    adversarial: Adversarial | None = None

    @model_validator(mode="after")
    def _labels_count(self) -> Self:
        if self.distill is not None and self.distill.soft == 1 and self.label_smoothing > 0:
            raise ValueError(
                f"expected label_smoothing 0.0 with distill.soft 1.0, whose loss has no labels, "
                f"got {self.label_smoothing:g}"
            )
        return self


class Student(Section):
    """student: a smaller network of the user's takes the baseline's place; recover trains it."""

    factory: str = Field(
        pattern=r"^[^:]+\.py:[A-Za-z_]\w*$", description="`file.py:function` below model.code"
    )
    arguments: dict[str, int | float | str | bool] = Field(default_factory=dict)


class _OneOf(Section):
    """A mapping with one key, the method, and its options."""

    @property
    def method(self) -> str:
        """Name of the method."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def config(self) -> Any:
        """Its options."""
        return getattr(self, self.method)

    @model_validator(mode="after")
    def _one_method(self) -> Self:
        named = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"expected one of {', '.join(type(self).model_fields)}, got {named or 'none'}")
        return self


class Shrinking(_OneOf):
    """One pass that shrinks, inside a schedule."""

    channels: Channels | None = None
    neurons: Neurons | None = None
    weights: Weights | None = None


class Iterate(Section):
    """iterate: shrink a little and recover, several times; targets lie on a geometric path."""

    steps: int = Field(ge=2, le=100)
    shrink: Shrinking
    recover: Recover


class Gradual(Section):
    """gradual: shrink during training, by the cubic ramp of Zhu and Gupta 2017 (arXiv:1710.01878)."""

    shrink: Shrinking
    recover: Recover
    events: int = Field(default=8, ge=2, le=1_000, description="how often something is removed")
    until: float = Field(default=0.5, gt=0, lt=1, description="share of the training after which it is done")


class Pass(_OneOf):
    """One pass of a recipe."""

    channels: Channels | None = None
    neurons: Neurons | None = None
    blocks: Blocks | None = None
    weights: Weights | None = None
    low_rank: LowRank | None = None
    recover: Recover | None = None
    iterate: Iterate | None = None
    gradual: Gradual | None = None
    student: Student | None = None

    @property
    def shrinks(self) -> _OneOf:
        """What it removes by: itself, or the pass inside its schedule."""
        shrink: _OneOf = getattr(self.config, "shrink", self)
        return shrink


_TRAINS = ("recover", "iterate", "gradual")


def _expect_student_first(recipe: tuple[Pass, ...]) -> None:
    methods = [entry.method for entry in recipe]
    if "student" in methods[1:]:
        index = methods.index("student", 1)
        raise ValueError(
            f"expected student as the first pass, got it at [{index}] after {methods[:index]}: it takes the "
            "place of the network that they changed"
        )
    if "student" in methods and not any(method in _TRAINS for method in methods):
        raise ValueError(
            f"expected one of {', '.join(_TRAINS)} after student, got none: it has not learned anything yet"
        )


def _expect_fours_last(recipe: tuple[Pass, ...]) -> None:
    patterned: int | None = None
    for index, shrinks in enumerate(entry.shrinks for entry in recipe):
        if patterned is not None and shrinks.method in ("channels", "neurons"):
            raise ValueError(
                f"expected weights with pattern 2:4 after {shrinks.method}, got them before, at "
                f"[{patterned}]: fewer channels make other fours"
            )
        if shrinks.method == "weights" and shrinks.config.pattern == "2:4":
            patterned = index


def _undoes_nothing(recipe: tuple[Pass, ...]) -> tuple[Pass, ...]:
    _expect_student_first(recipe)
    _expect_fours_last(recipe)
    return recipe


PruneRecipe = Annotated[tuple[Pass, ...], AfterValidator(_undoes_nothing)]
"""Passes in order, of which none throws away what another has done."""
