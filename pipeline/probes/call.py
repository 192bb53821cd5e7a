# SPDX-License-Identifier: Apache-2.0
"""One node of an ONNX graph, about to be computed in torch.

Imports torch at its top; import it inside functions.
"""

# ruff: noqa: TID253 - this module defines torch functions, and stages import it inside `run`

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from checks.errors import ProbeError

__all__ = ["Call"]


@dataclass(frozen=True)
class Call:
    """One node about to be computed.

    Attributes:
        op: The operator's name.
        inputs: The values it reads; None where an optional input is left out.
        attributes: Its attributes as Python values.
    """

    op: str
    inputs: tuple[Tensor | None, ...]
    attributes: Mapping[str, Any]

    def tensor(self, index: int) -> Tensor:
        """Return a required input."""
        value = self.optional(index)
        if value is None:
            raise ProbeError(f"expected input {index} of {self.op}, got none")
        return value

    def optional(self, index: int) -> Tensor | None:
        """Return an input, or None where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or `default` where it is left out."""
        return self.attributes.get(name, default)

    def integers(self, name: str, index: int) -> list[int] | None:
        """Return integers that old opsets keep in an attribute and new ones in an input."""
        if self.get(name) is not None:
            return [int(value) for value in self.get(name)]
        value = self.optional(index)
        return None if value is None else [int(entry) for entry in value.reshape(-1).tolist()]

    def refuse(self, name: str, *allowed: Any) -> None:
        """Raise unless an attribute is left out or has one of the values that are implemented."""
        if self.get(name, allowed[0]) not in allowed:
            raise ProbeError(
                f"expected {name} of {self.op} to be one of {list(allowed)}, got {self.get(name)}"
            )
