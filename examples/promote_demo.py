# SPDX-License-Identifier: Apache-2.0
"""From raw data to production and back: every command of docs/promotion.md, run for real, with what it said.

`make promote-demo` runs it in a copy of the project, with a registry server on 127.0.0.1; nothing stays but
what is printed. It fails at the first command whose exit code is not the one that is expected.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL = "leangate-digits"
READY_SECONDS = 120
CONFIG = """schema: leangate/registry/1
protected_aliases: [production, champion]
policy_owners: owners           # public keys: who approves policies
makers: makers                  # public keys: whose signature on a bundle counts
ledger_key: ledger/leangate.key # private: signs the ledger's checkpoints
"""


class Walk:
    """A person at a terminal."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = dict(os.environ) | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            "PYTHONWARNINGS": "ignore",
            "COLUMNS": "110",
        }
        for name in ("LEANGATE_SIGNING_KEY", "LEANGATE_REGISTRY", "MLFLOW_TRACKING_URI"):
            self.environment.pop(name, None)

    def say(self, words: str) -> None:
        """Show what comes next."""
        print(f"\n# {words}", flush=True)

    def export(self, name: str, value: str) -> None:
        """Set a variable for all commands that follow."""
        print(f"$ export {name}={value}", flush=True)
        self.environment[name] = value

    def run(self, *command: str, code: int = 0, last: int = 0, by: str = "") -> str:
        """Run a command, show it and what it says (the last lines of it), and insist on its exit code."""
        environment = dict(self.environment)
        if by:
            environment["LEANGATE_SIGNING_KEY"] = f"keys/{by}/leangate.key"
        shown = " ".join(
            word if word and " " not in word and "\n" not in word else repr(word) for word in command
        )
        print(f"$ {f'LEANGATE_SIGNING_KEY=keys/{by}/leangate.key ' if by else ''}{shown}", flush=True)
        done = subprocess.run(
            command,
            cwd=self.home,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        lines = done.stdout.rstrip().splitlines()
        if last and len(lines) > last:
            lines = ["...", *lines[-last:]]
        if lines:
            print("\n".join(lines), flush=True)
        if done.returncode != code:
            sys.exit(f"expected exit code {code}, got {done.returncode}:\n{done.stdout[-4000:]}")
        if code:
            print(f"(exit code {code})", flush=True)
        return done.stdout


def _copy(home: Path) -> None:
    """Copy what git tracks, as it lies here."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        if name and name != "dvc.lock" and (ROOT / name).is_file():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, home / name)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b.invalid", "commit", "-qm", "Start"],
    ):
        subprocess.run(["git", *command], cwd=home, check=True)


def _serve(walk: Walk, port: int) -> subprocess.Popen[bytes]:
    command = [
        *("mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *(
            "--backend-store-uri",
            "sqlite:///registry.db",
            "--registry-store-uri",
            "gated+sqlite:///registry.db",
        ),
        *("--artifacts-destination", f"worm+file://{walk.home}/registry/artifacts"),
    ]
    shown = " ".join(command).replace(str(walk.home), "$PWD")
    print(f"$ LEANGATE_REGISTRY=keys/registry.yaml {shown} &", flush=True)
    environment = walk.environment | {
        "LEANGATE_REGISTRY": str(walk.home / "keys" / "registry.yaml"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (walk.home / "server.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=walk.home,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait(uri: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{uri}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    sys.exit(f"the server did not come up:\n{log.read_text(errors='replace')[-4000:]}")


def _keys(walk: Walk) -> None:
    walk.say("Four people and a server, each with a key of their own.")
    for name in ("maker", "owner", "approver", "ledger"):
        walk.run("leangate", "keys", "new", f"keys/{name}", last=1)
    walk.say("What the server believes: lies with the server, out of reach of its clients.")
    for role, name in (("makers", "maker"), ("owners", "owner"), ("approvers", "approver")):
        walk.run("mkdir", f"keys/{role}")
        walk.run("cp", f"keys/{name}/leangate.pub", f"keys/{role}/{name}.pub")
    (walk.home / "keys" / "registry.yaml").write_text(CONFIG)
    walk.run("cat", "keys/registry.yaml")


def _promote(walk: Walk) -> None:
    walk.say("The owner approves the policy before anything is judged under it.")
    walk.run(
        *("leangate", "policy", "approve", "--model", MODEL, "--approvers", "keys/approvers"),
        *("--until", "2027-12-31"),
        by="owner",
    )
    walk.say("The pipeline: data to a signed bundle, registered. The server derives every verdict anew.")
    walk.run("leangate", "run", by="maker", last=4)
    walk.say("Nobody agreed to it yet.")
    walk.run("leangate", "promote", MODEL, "1", code=1)
    walk.say("Past LeanGate's command, with MLflow's own client: the same answer.")
    walk.run("python", "examples/bypass.py")
    walk.say("Whoever made it cannot approve it.")
    walk.run("leangate", "approve", MODEL, "1", by="maker", code=1)
    walk.say("The approver's machine verifies the bundle before it signs.")
    walk.run("leangate", "approve", MODEL, "1", by="approver")
    walk.run("leangate", "promote", MODEL, "1")


def _second(walk: Walk) -> None:
    walk.say("A second version: the same model with another limitation on its card.")
    declared = walk.home / "governance.yaml"
    text = declared.read_text()
    if "  limitations:\n" not in text:
        sys.exit("expected use.limitations in governance.yaml")
    declared.write_text(
        text.replace("  limitations:", "  limitations:\n    - Not tried on digits of children.", 1)
    )
    walk.run("git", "diff", "--unified=0", "governance.yaml", last=1)
    walk.run("leangate", "run", by="maker", last=1)
    walk.run("leangate", "approve", MODEL, "2", by="approver")
    walk.run("leangate", "promote", MODEL, "2")
    walk.say("Something is wrong with it: one command, and version 1 is checked again and back.")
    walk.run("leangate", "rollback", MODEL)
    walk.run("leangate", "revoke", MODEL, "2", "--reason", "wrong card")
    walk.run("leangate", "promote", MODEL, "2", code=1)


def _look_back(walk: Walk) -> None:
    walk.say("What was production when, by whom, on what evidence?")
    walk.run("leangate", "history", MODEL)
    walk.say("Offline, years later: the ledger and the bundle prove themselves, without any server.")
    walk.run("leangate", "ledger", "export", "ledger.jsonl", "--checkpoint", "checkpoint.json")
    walk.environment["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    walk.run(
        *("leangate", "ledger", "verify", "ledger.jsonl", "--trust", "keys/ledger/leangate.pub"),
        *("--checkpoint", "checkpoint.json"),
    )
    walk.run(
        "leangate",
        "history",
        MODEL,
        "--ledger",
        "ledger.jsonl",
        "--at",
        time.strftime("%Y-%m-%d", time.gmtime()),
    )
    walk.run("leangate", "verify", "artifacts/bundle", "--trust", "keys/makers")


def main() -> None:
    """Walk the road once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="an empty folder to work in, which stays")
    folder = parser.parse_args().keep
    with tempfile.TemporaryDirectory(prefix="promote-demo-") as temporary:
        home = Path(folder or temporary).resolve()
        home.mkdir(parents=True, exist_ok=True)
        walk = Walk(home)
        _copy(home)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        _keys(walk)
        walk.say("The registry.")
        server = _serve(walk, port)
        try:
            uri = f"http://127.0.0.1:{port}"
            _wait(uri, server, home / "server.log")
            walk.export("MLFLOW_TRACKING_URI", uri)
            _promote(walk)
            _second(walk)
            _look_back(walk)
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


if __name__ == "__main__":
    main()
