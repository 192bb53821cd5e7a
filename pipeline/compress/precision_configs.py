# SPDX-License-Identifier: Apache-2.0
"""Options of every precision, as they stand in `params.yaml`; nothing here imports torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from pipeline.compress.configs import Recover
from pipeline.sections import Section

__all__ = [
    "LEAST_EXAMPLES",
    "DynamicInt8",
    "Float16",
    "Float32",
    "QuantizeRecipe",
    "Rescue",
    "StaticInt8",
    "TrainedInt8",
    "WeightsInt8",
]

LEAST_EXAMPLES = 32
"""The next image leaves the range of n images with probability at most 2 / (n + 1): 6 % at 32."""


class Float32(Section):
    """The file as it is."""

    method: Literal["none"]


class Float16(Section):
    """Weights and arithmetic in 16-bit floats."""

    method: Literal["fp16"]


class WeightsInt8(Section):
    """Weights stored as int8, arithmetic in floats."""

    method: Literal["weights"]


class DynamicInt8(Section):
    """Weights int8, ranges of activations found at run time."""

    method: Literal["dynamic"]


class StaticInt8(Section):
    """Weights int8 with a scale a channel, activations uint8 with ranges from the calibration split."""

    method: Literal["static"] = "static"
    calibration: Literal["minmax", "entropy", "percentile", "mse"] = "minmax"
    percentile: float = Field(default=99.99, gt=50, le=100)
    max_examples: int = Field(default=512, ge=LEAST_EXAMPLES, description="of the calibration split")
    equalize: bool = Field(default=False, description="equalize weight ranges across layers first")
    correct_bias: bool = Field(default=False, description="correct biases by the mean error of quantization")
    keep_float: int = Field(default=0, ge=0, le=1_000, description="how many of the worst layers stay float")
    float_first: bool = Field(
        default=False,
        description="the first convolution stays float: of three channels it is faster so, and exact",
    )
    portable: bool = Field(
        default=False, description="weights that cannot saturate on processors without VNNI"
    )

    @model_validator(mode="after")
    def _percentile_counts(self) -> Self:
        default = StaticInt8.model_fields["percentile"].default
        if self.percentile != default and self.calibration != "percentile":
            raise ValueError(
                f"expected calibration percentile with percentile {self.percentile:g}, got {self.calibration}"
            )
        return self


def _trains_a_file(recover: Recover) -> Recover:
    if recover.precision != "float32":
        raise ValueError(
            f"expected precision float32, got {recover.precision}: bf16 is coarser than the rounding to int8"
        )
    if recover.distill is not None and recover.distill.layers:
        raise ValueError("expected distill without layers: an ONNX file has none to be named")
    return recover


RecoverFile = Annotated[Recover, AfterValidator(_trains_a_file)]
"""Recovery of an ONNX file."""


class TrainedInt8(StaticInt8):
    """Quantization-aware training: starts from static int8, trains through the rounding."""

    method: Literal["trained"] = "trained"  # type: ignore[assignment]
    recover: RecoverFile


class Rescue(Section):
    """Climb from the cheapest rung to the dearest, and stop at the first that passes validation."""

    method: Literal["rescue"]
    max_accuracy_drop: float = Field(
        gt=0, lt=1, description="against the float file, on the validation split"
    )
    max_class_drop: float = Field(gt=0, le=1, description="the same for the worst class")
    max_examples: int = Field(default=512, ge=LEAST_EXAMPLES, description="of the calibration split")
    recover: RecoverFile | None = Field(
        default=None, description="of the last rung; without it nothing is trained"
    )


QuantizeRecipe = Annotated[
    Float32 | Float16 | WeightsInt8 | DynamicInt8 | StaticInt8 | TrainedInt8 | Rescue,
    Field(discriminator="method"),
]
