# SPDX-License-Identifier: Apache-2.0
"""The one exception tree.

LeanGateError                 exit code 4, could not judge
├── InputError                exit code 2, the user's input is wrong
│   ├── ParamsError           params.yaml
│   ├── PolicyError           policy.yaml
│   ├── GovernanceError       governance.yaml
│   ├── DataError             images, manifest
│   └── ModelError            factory, weights, ONNX file
├── BlockedError              exit code 1, nothing passed
├── InconclusiveError         exit code 3, more data would settle it
├── EvidenceError             evidence is missing, malformed or of something else
├── CheckError                a check broke or broke its contract
├── CompressionError          a pass could not do what was asked
├── ProbeError                a model could not be run for measurement
├── RegistryError             MLflow refused or cannot be reached
└── StorageError              a file could not be written or read

`str(error)` says what was expected, what came and where; `error.hint` says what to do.
"""

from __future__ import annotations

__all__ = [
    "BlockedError",
    "CheckError",
    "CompressionError",
    "DataError",
    "EvidenceError",
    "GovernanceError",
    "InconclusiveError",
    "InputError",
    "LeanGateError",
    "ModelError",
    "ParamsError",
    "PolicyError",
    "ProbeError",
    "RegistryError",
    "StorageError",
]


class LeanGateError(Exception):
    """Root of every error LeanGate raises on purpose.

    Args:
        what: What was expected and what came.
        where: File and key the error is about, for example `policy.yaml rules[2].margin`.
        hint: What the reader can do about it.
    """

    exit_code = 4

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(f"{where}: {what}" if where else what)
        self.what = what
        self.where = where
        self.hint = hint


class InputError(LeanGateError):
    """The user's input is wrong."""

    exit_code = 2


class ParamsError(InputError):
    """`params.yaml` is wrong."""


class PolicyError(InputError):
    """`policy.yaml` is wrong."""


class GovernanceError(InputError):
    """`governance.yaml` is wrong."""


class DataError(InputError):
    """Images or manifest are wrong."""


class ModelError(InputError):
    """A model factory, weights file or ONNX file is wrong."""


class BlockedError(LeanGateError):
    """No finalist passed the gates."""

    exit_code = 1


class InconclusiveError(LeanGateError):
    """No finalist passed, and more data would settle it."""

    exit_code = 3


class EvidenceError(LeanGateError):
    """Evidence is missing, malformed, or about another artifact."""


class CheckError(LeanGateError):
    """A check raised, or returned something its contract forbids."""


class CompressionError(LeanGateError):
    """A compression pass could not do what was asked of it."""


class ProbeError(LeanGateError):
    """A probe could not run a model for measurement."""


class RegistryError(LeanGateError):
    """The model registry refused or cannot be reached."""


class StorageError(LeanGateError):
    """A file could not be written or read."""
