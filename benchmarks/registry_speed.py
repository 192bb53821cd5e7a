# SPDX-License-Identifier: Apache-2.0
"""What the gate costs: a plain and a gated MLflow server side by side, a 50 MB model, calls interleaved.

`make bench-registry` prints medians and 95th percentiles, in milliseconds, of moving and resolving an alias,
and what the gate adds. The server's own CPU is not told apart: both run on this machine, beside the client.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.governed_registry import governed_keys, make_bundle
from tests.registry_server import registry_server

MEGABYTE = 1_000_000
_FIELD = 15  # of ONNX's ModelProto, unused: a parser keeps it as it is


def _tail(size: int) -> bytes:
    """Return a protobuf field that nobody reads, so that a small model makes a large file."""
    length, rest = b"", size
    while rest > 0x7F:
        length += bytes([rest & 0x7F | 0x80])
        rest >>= 7
    return bytes([_FIELD << 3 | 2]) + length + bytes([rest]) + bytes(size)


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def _row(name: str, plain: list[float], gated: list[float]) -> str:
    def p95(values: list[float]) -> float:
        return statistics.quantiles(values, n=20)[-1]

    one, other = statistics.median(plain), statistics.median(gated)
    more = statistics.median(b - a for a, b in zip(plain, gated, strict=True))
    return (
        f"| {name} | {one:.1f} | {other:.1f} | {more:.1f} | {p95(plain):.1f} | {p95(gated):.1f} | "
        f"{p95(gated) - p95(plain):.1f} |"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="registry-speed-") as temporary:
        folder = Path(temporary)
        keys = governed_keys(folder / "keys")
        made = make_bundle(
            folder / "project", keys.private("maker"), tail=_tail(options.megabytes * MEGABYTE)
        )
        environment = {"LEANGATE_REGISTRY": str(keys.config)}
        with (
            registry_server(
                folder / "plain", registry=f"sqlite:///{folder}/plain/mlflow.db", artifacts="file"
            ) as plain,
            registry_server(folder / "gated", environment=environment) as gated,
            plain.client() as one,
            gated.client() as other,
        ):
            other.create_registered_model(made.model)
            approval = keys.policy_approval(made.policy_sha256, approvals=0)
            other.set_registered_model_tag(made.model, "leangate.policy", approval)
            sides = []
            for server, client in ((plain, one), (gated, other)):
                version = made.register(server.uri)
                sides.append((client, version))
            moved: tuple[list[float], list[float]] = ([], [])
            found: tuple[list[float], list[float]] = ([], [])
            for number in range(options.rounds + 3):
                for side, (client, version) in enumerate(sides):
                    set_ms = _timed(
                        lambda c=client, v=version: c.set_registered_model_alias(made.model, "production", v)
                    )
                    get_ms = _timed(lambda c=client: c.get_model_version_by_alias(made.model, "production"))
                    if number >= 3:  # the first calls load modules
                        moved[side].append(set_ms)
                        found[side].append(get_ms)
        size = (made.layout.bundle / "model.onnx").stat().st_size / MEGABYTE
        print(f"model.onnx of {size:.0f} MB, {options.rounds} calls each, interleaved; milliseconds\n")
        print("| | plain, median | gated, median | more, median | plain, p95 | gated, p95 | more, p95 |")
        print("|---|---|---|---|---|---|---|")
        print(_row("move `production`", *moved))
        print(_row("resolve `production`", *found))


if __name__ == "__main__":
    main()
