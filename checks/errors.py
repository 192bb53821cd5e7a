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
│   └── SchemaError           a file is of a version of its schema that is not known here
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
    "SchemaError",
    "StorageError",
    "refuse_schema",
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


class SchemaError(EvidenceError):
    """A file is of a version of its schema that this code does not know."""


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


def refuse_schema(expected: str, came: object, where: str, hint: str = "") -> EvidenceError:
    """Return the error on a file of another schema: `SchemaError` if only its version is another.

    Args:
        expected: The one that is known, for example `leangate/decision/1`.
        came: What the file says.
        where: The file.
        hint: What to do about a file of no such schema.
    """
    family, _, version = came.rpartition("/") if isinstance(came, str) else ("", "", "")
    if version.isdecimal() and family == expected.rpartition("/")[0]:
        return SchemaError(
            f"expected schema {expected}, the one known here, got {came}"[:200],
            where=where,
            hint="use the version of LeanGate that made the file, or a later one",
        )
    return EvidenceError(f"expected schema {expected}, got {came!r}"[:200], where=where, hint=hint)
