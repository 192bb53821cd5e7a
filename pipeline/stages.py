# SPDX-License-Identifier: Apache-2.0
"""The stages by name, and how one runs: as a process of its own that cannot outlive its parent."""

from __future__ import annotations

import argparse
import ctypes
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from checks.errors import LeanGateError, ParamsError, StorageError
from pipeline.failures import report_error
from pipeline.layout import Layout

if TYPE_CHECKING:
    from pipeline.params import Params

__all__ = [
    "STAGES",
    "add_stage_parsers",
    "die_with_parent",
    "main",
    "run_stage",
    "settle_environment",
]

STAGES: Mapping[str, tuple[str, ...]] = {
    "prepare": (),
    "validate": (),
    "train": (),
    "prune": ("variant",),
    "quantize": ("variant", "precision"),
    "shortlist": (),
    "attempt": (),
    "evaluate": ("slot",),
    "time": ("slot",),
    "gate": ("slot",),
    "select": (),
    "enforce": (),
    "bundle": (),
    "register": (),
}
"""Stage to the names of its matrix, in the order of the road."""

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to kill this process when its parent dies: an orphan would write beside its successor."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before the request was in place
        os.kill(os.getpid(), signal.SIGKILL)


def settle_environment() -> None:
    """Switch off telemetry, and threads that only get into each other's way on small networks."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.update(
        ORT_DISABLE_TELEMETRY="1",
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="true",
        GX_ANALYTICS_ENABLED="false",
        DVC_NO_ANALYTICS="1",
    )


def _as_storage_error(error: OSError) -> LeanGateError:
    return StorageError(
        f"expected files to be read and written, got {error.strerror or error}",
        where=str(error.filename or ""),
        hint="free disk space or fix permissions, then run again",
    )


def _as_fault(error: Exception, stage: str) -> LeanGateError:
    if os.environ.get("LEANGATE_DEBUG"):
        traceback.print_exception(error)
    return LeanGateError(
        f"expected the stage to end in a result or a named error, got {type(error).__name__}: {error}",
        where=f"stage {stage}",
        hint="this is a fault of LeanGate; LEANGATE_DEBUG=1 shows where it lies",
    )


def add_stage_parsers(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add one subcommand a stage."""
    for name, matrix in STAGES.items():
        parser = parsers.add_parser(name, help=f"run the stage {name} (called by `dvc repro`)")
        for key in matrix:
            parser.add_argument(f"--{key}", required=True)
        parser.set_defaults(stage=name)


def _expect_known(matrix: Mapping[str, str], params: Params) -> None:
    """Refuse names that `params.yaml` does not know before anything is read that they would have made."""
    from pipeline.section_errors import did_you_mean

    names: Mapping[str, tuple[str, Collection[str]]] = {
        "variant": ("prune.recipes", params.prune.recipes),
        "precision": ("quantize.recipes", params.quantize.recipes),
        "slot": ("shortlist.slots", params.shortlist.slots),
    }
    for option, name in matrix.items():
        key, known = names[option]
        if name not in known:
            raise ParamsError(
                f"expected one of {key} ({', '.join(sorted(known))}), got {name!r}"
                + did_you_mean(name, known),
                where=f"--{option}",
                hint=f"name one of them, or add it to {key} in params.yaml",
            )


def run_stage(name: str, matrix: Mapping[str, str], root: Path) -> int:
    """Run one stage in this process and return its exit code.

    All three files of the user are checked whole before anything else happens, so that a slip in a late
    section costs no training.
    """
    die_with_parent()
    settle_environment()
    try:
        from pipeline.governance import load_governance
        from pipeline.params import load_params
        from pipeline.policy_file import expect_measured, load_policy

        layout = Layout(root)
        params = load_params(layout.params)
        load_governance(layout.governance)
        expect_measured(load_policy(layout.policy).policy, params, layout.policy.name)
        _expect_known(matrix, params)
        module = importlib.import_module(f"pipeline.{name}")
        module.run(layout, params, **matrix)
    except LeanGateError as error:
        return report_error(error, name)
    except OSError as error:
        return report_error(_as_storage_error(error), name)
    except MemoryError:
        return report_error(
            LeanGateError("expected enough memory, got none left", where=f"stage {name}"), name
        )
    except Exception as error:  # whatever it is, it ends as "could not judge", never as "blocked"
        return report_error(_as_fault(error, name), name)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `python -m pipeline STAGE`."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description="Run one stage of the pipeline.")
    add_stage_parsers(parser.add_subparsers(required=True, metavar="STAGE"))
    options = parser.parse_args(arguments)
    matrix = {key: getattr(options, key) for key in STAGES[options.stage]}
    return run_stage(options.stage, matrix, Path())
