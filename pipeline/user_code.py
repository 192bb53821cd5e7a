# SPDX-License-Identifier: Apache-2.0
"""The user's own functions, named `file.py:function` in `params.yaml` and loaded by file path."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from checks.errors import InputError

__all__ = ["call_function", "load_function"]


def load_function(spec: str, root: Path, *, where: str, error_type: type[InputError]) -> Callable[..., Any]:
    """Load the function that `spec` names, without changing `sys.path`.

    Args:
        spec: `file.py:function`, the file relative to `root`.
        root: Folder of `params.yaml`.
        where: File and key of `spec`, for messages.
        error_type: What to raise.

    Raises:
        error_type: if the file is missing or fails to load, or has no such function.
    """
    file, _, name = spec.rpartition(":")
    path = (root / file).resolve()
    if not path.is_file():
        raise error_type(f"expected a Python file, got {file!r}, which does not exist", where=where)
    # The module's name is the path's own, so that a user's `net.py` never stands in for anything installed.
    module_name = f"leangate_user_code_{path.stem}_{abs(hash(path))}"
    module_spec = importlib.util.spec_from_file_location(module_name, path)
    if module_spec is None or module_spec.loader is None:
        raise error_type(f"expected a Python file, got {file!r}", where=where)
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise error_type(
            f"expected {file} to load, got {type(error).__name__}: {error}", where=where
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise error_type(f"expected a function {name!r} in {file}, got none", where=where)
    return function  # type: ignore[no-any-return]


def call_function(
    function: Callable[..., Any], arguments: dict[str, Any], *, where: str, error_type: type[InputError]
) -> Any:
    """Call a user's function and say so if it raises.

    Raises:
        error_type: if the function raises.
    """
    try:
        return function(**arguments)
    except (Exception, SystemExit) as error:
        raise error_type(
            f"expected the function to return, got {type(error).__name__}: {error}",
            where=where,
            hint=f"call it by hand with the arguments {arguments}",
        ) from error
