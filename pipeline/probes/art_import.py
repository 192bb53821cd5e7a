# SPDX-License-Identifier: Apache-2.0
"""The Adversarial Robustness Toolbox, imported without leaving traces in the user's home."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from checks.errors import ProbeError

__all__ = ["import_art"]


@contextmanager
def _elsewhere() -> Iterator[None]:
    """Let the user's home be a throw-away folder for a moment."""
    before = {name: os.environ.get(name) for name in ("HOME", "USERPROFILE")}
    with tempfile.TemporaryDirectory() as home:
        os.environ.update(dict.fromkeys(before, home))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _import_config() -> None:
    """Import `art.config` while home is a throw-away folder: on import it writes `~/.art/config.json`."""
    spec = importlib.util.find_spec("art")
    if spec is None or spec.submodule_search_locations is None:
        raise ProbeError(
            "expected the package adversarial-robustness-toolbox, got none",
            hint="pip install adversarial-robustness-toolbox",
        )
    place = Path(spec.submodule_search_locations[0]) / "config.py"
    config = importlib.util.spec_from_file_location("art.config", place)
    if config is None or config.loader is None:
        raise ProbeError("expected the package adversarial-robustness-toolbox, got one without art/config.py")
    module = importlib.util.module_from_spec(config)
    with _elsewhere():
        config.loader.exec_module(module)
    sys.modules["art.config"] = module


def import_art() -> SimpleNamespace:
    """Return the four classes of ART that the pool uses; the first call takes seconds.

    Raises:
        ProbeError: if the package is not installed.
    """
    if "art.config" not in sys.modules:
        _import_config()
    from art.attacks.evasion import ProjectedGradientDescent, SquareAttack
    from art.estimators.classification import BlackBoxClassifierNeuralNetwork, PyTorchClassifier

    logging.getLogger("art").setLevel(logging.ERROR)
    return SimpleNamespace(
        BlackBoxClassifierNeuralNetwork=BlackBoxClassifierNeuralNetwork,
        ProjectedGradientDescent=ProjectedGradientDescent,
        PyTorchClassifier=PyTorchClassifier,
        SquareAttack=SquareAttack,
    )
