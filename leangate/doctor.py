# SPDX-License-Identifier: Apache-2.0
"""`leangate doctor`: whether a registry really enforces."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from leangate.terminal import Line, Table, render

__all__ = ["HELP", "doctor"]

HELP = """Ask an MLflow server whether it enforces: whether the alias production and the stage Production are
refused to a version without evidence, whether it keeps a ledger, whether published files can be changed,
whether it knows who asks. Needs no right to promote and changes nothing; a gated registry writes into its
ledger that it refused. Where MLflow lets a user ask only about models that exist, name one with --model.
A database's address is no server: whoever has it can write past every gate.

exit codes:
  0  it enforces
  1  it does not; the lines that say `missing` are why
  2  wrong use
  4  cannot tell: nobody answers, or the user given may not ask
"""

_STYLES = {"holds": "green", "missing": "red", "unknown": "yellow"}
_ENDS = {
    0: ("it enforces", "bold green"),
    1: ("it does NOT enforce", "bold red"),
    4: ("cannot tell whether it enforces", "bold yellow"),
}


def doctor(root: Path, registry: str | None, model: str | None, *, as_json: bool) -> tuple[str, int]:
    """Return what to print, and the exit code.

    Args:
        root: The folder of `dvc.yaml`.
        registry: Address; by default `MLFLOW_TRACKING_URI`, and without that the database in `root`.
        model: A registered model that may be edited.
        as_json: Print JSON.

    Raises:
        InputError: if the address is none.
        RegistryError: if nobody answers there.
    """
    from pipeline.registry_client import URI, default_uri
    from pipeline.registry_probe import probe_registry

    uri = registry if registry is not None else os.environ.get(URI, "").strip() or default_uri(root)
    probes = probe_registry(uri, model)
    states = {probe.state for probe in probes}
    code = 1 if "missing" in states else 4 if "unknown" in states else 0
    if as_json:
        value = {"enforces": {0: True, 1: False}.get(code), "probes": [asdict(probe) for probe in probes]}
        return json.dumps(value, indent=2) + "\n", code
    table = Table(
        heads=("", "Asked", "What was seen"),
        rows=[(probe.state, probe.name, probe.said) for probe in probes],
        styles=[_STYLES[probe.state] for probe in probes],
    )
    words, style = _ENDS[code]
    return render([table, Line(words, style)]), code
