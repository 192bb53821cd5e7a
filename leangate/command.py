# SPDX-License-Identifier: Apache-2.0
"""How a command ends: whatever goes wrong is a sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

__all__ = ["run_command"]


def _end(error: Exception | SystemExit) -> int:
    from checks.errors import CheckError, LeanGateError, StorageError
    from pipeline.failures import report_error

    match error:
        case LeanGateError():
            return report_error(error)
        case OSError():
            # Without this the interpreter would try again at exit to write what is left in the buffer.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            where = "standard output" if error.filename is None else str(error.filename)
            what = f"expected to write the output, got {error.strerror}"
            return report_error(StorageError(what, where=where))
        case SystemExit():  # a plugin's: its code would pass for a verdict
            return report_error(
                CheckError(f"expected checks to return, got sys.exit({error.code!r}) from one")
            )
        case MemoryError():
            return report_error(LeanGateError("expected enough memory, got none left"))
        case _:
            if os.environ.get("LEANGATE_DEBUG"):
                traceback.print_exception(error)
            return report_error(
                LeanGateError(
                    f"expected a result or a named error, got {type(error).__name__}: {error}"[:400],
                    hint="this is a fault of LeanGate; LEANGATE_DEBUG=1 shows where it lies",
                )
            )


def run_command(work: Callable[[], int], again: str = "") -> int:
    """Do the work and return its exit code, or that of what went wrong; 4 where nothing else is known.

    Args:
        work: Prints its result and returns the exit code.
        again: What takes up work that was interrupted.
    """
    if sys.stdout is None:
        from checks.errors import StorageError

        return _end(StorageError("expected an output, got a closed one", where="standard output"))
    try:
        return work()
    except KeyboardInterrupt:
        print(f"interrupted{f'; {again}' if again else ''}", file=sys.stderr)
        return 130
    except (Exception, SystemExit) as error:
        return _end(error)
