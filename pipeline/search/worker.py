# SPDX-License-Identifier: Apache-2.0
"""A search in a process of its own: `python -m pipeline.search.worker`, told what to do on standard input."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from checks.errors import InputError, LeanGateError
from pipeline.failures import report_error
from pipeline.layout import Layout
from pipeline.params import load_params
from pipeline.search.run import Task, folder_of, open_here, work
from pipeline.stages import die_with_parent, settle_environment

__all__ = ["main"]


def main() -> int:
    """Work until nothing is left; 0 if it is so, 75 if the minutes were over first."""
    die_with_parent()
    settle_environment()
    try:
        told = json.load(sys.stdin)
        layout = Layout(Path(told["root"]))
        params = load_params(layout.params)
        params = params.model_copy(
            update={"search": params.search.model_copy(update={"trials": told["trials"]})}
        )
        seconds = told["seconds"]
        deadline = float("inf") if seconds is None else time.monotonic() + seconds
        task = Task(told["owner"], [(owner, bracket) for owner, bracket in told["adopt"]], deadline)
    except (ValueError, KeyError, TypeError) as error:
        return report_error(InputError(f"expected a task, got {type(error).__name__}: {error}"))
    except LeanGateError as error:
        return report_error(error)
    try:
        from pipeline.search.bench import FileBench

        study = open_here(layout, params, told["storage"], resume=True)
        folder = folder_of(layout)
        bench = FileBench(layout, params, folder)
        return 0 if work(study, bench, params, folder, task, lambda: None) else OUT_OF_TIME
    except LeanGateError as error:
        return report_error(error)
    except KeyboardInterrupt:
        return 130


OUT_OF_TIME = 75
"""Exit code: the minutes were over before the trials were."""

if __name__ == "__main__":
    sys.exit(main())
