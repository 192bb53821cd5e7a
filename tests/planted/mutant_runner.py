# SPDX-License-Identifier: Apache-2.0
"""Runs tests in many copies of the project, one process each, without importing numpy and pytest anew.

Started as a process of its own. Each line that comes in is a folder; what goes out is pytest's exit code in it,
or -9 where the tests never ended. Nothing of the project is imported before the fork: each child has the
modules of its folder alone.
"""

from __future__ import annotations

import importlib
import os
import resource
import sys

_SECONDS = 60
"""Of processor time; a mutant may loop for ever."""


def _run(folder: str, tests: list[str], *, keep_compiled: bool) -> None:
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os.chdir(folder)
    sys.dont_write_bytecode = not keep_compiled
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist"]
    os._exit(int(pytest.main([*options, f"--rootdir={folder}", *tests])))


def main() -> None:
    """Serve the folders that come in; the arguments are the tests to run."""
    for name in ("numpy", "numpy.random", "pytest", "scipy.special"):
        importlib.import_module(name)
    assert not any(name == "checks" or name.startswith("checks.") for name in sys.modules)
    first = True
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            # Nothing has been changed in the first run; what it compiles is right for all that follow.
            _run(line.strip(), sys.argv[1:], keep_compiled=first)
        first = False
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
