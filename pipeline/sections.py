# SPDX-License-Identifier: Apache-2.0
"""What sections of `params.yaml` have in common, and the one that several share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Name", "Section", "Share", "Training"]

Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,39}$")]
Share = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A section: immutable, unknown keys and non-finite numbers refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class Training(Section):
    """How a network is trained or recovers from a pass."""

    epochs: int = Field(ge=0, le=10_000)
    batch_size: int = Field(ge=2, le=65_536)
    learning_rate: float = Field(gt=0, le=10)
    weight_decay: float = Field(ge=0, le=1)
    label_smoothing: float = Field(ge=0, lt=1)
    max_shift: int = Field(ge=0, le=64, description="random translation, in pixels")
    flip: bool = Field(default=False, description="random horizontal mirror image")
    noise: float = Field(
        default=0.0, ge=0, le=1, description="sd of Gaussian noise, share of the pixel range"
    )
    precision: Literal["float32", "bf16"] = Field(
        default="float32",
        description="of convolutions and products while training; weights and losses stay float32",
    )
