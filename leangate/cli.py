# SPDX-License-Identifier: Apache-2.0
"""The command `leangate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import leangate
from leangate.arguments import Parsers, add_command
from leangate.command import run_command
from leangate.promotion_commands import add_policy_approve, add_promotion_commands, dispatch_promotion

__all__ = ["build_parser", "main"]

_EXIT_CODES = """exit codes:
  0  passed
  1  blocked: harm was proven, or nothing was good enough to be judged
  2  wrong use or input
  3  inconclusive: more data is needed
  4  could not judge
"""

_LINT = """Show, for every bounded rule and slice of a policy, how many test examples there are, how many
any candidate needs, and the chance that a candidate passes which is truly as good as the baseline. Needs
the prepared data (`dvc repro prepare`) and no model.

exit codes:
  0  every blocking rule can pass on this data; rules with a chance below 0.5 are warned of
  2  some blocking rule cannot, or policy, params.yaml or data are wrong or missing
"""

_CHURN = 0.02
"""What an honest int8 candidate decides otherwise on the bundled digits: one or two images in a hundred."""

_FOR_PEOPLE = "gate"
"""Judges and writes nothing here; the stage that writes the decision is `python -m pipeline gate`."""


def _add_stages(commands: Parsers[argparse.ArgumentParser]) -> None:
    from pipeline.stages import STAGES

    for name, matrix in STAGES.items():
        if name == _FOR_PEOPLE:
            _add_gate(commands)
            continue
        parser = commands.add_parser(name, help=f"run the stage {name} (called by `dvc repro`)")
        for key in matrix:
            parser.add_argument(f"--{key}", required=True)


def _add_gate(commands: Parsers[argparse.ArgumentParser]) -> None:
    from leangate.judging import HELP

    parser = add_command(
        commands, "gate", "judge the evidence that lies here; print every finding, write nothing", HELP
    )
    parser.add_argument("--slot", help="of the shortlist; by default the first in params.yaml")
    _add_policy(parser)
    parser.add_argument("--json", action="store_true", help="print the decision as the stage writes it")
    parser.add_argument("--verbose", action="store_true", help="also the processor seconds of each check")


def _add_policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--policy", type=Path, metavar="FILE", help="policy file; by default policy.yaml")


def _add_policy_commands(commands: Parsers[argparse.ArgumentParser]) -> None:
    policy = commands.add_parser("policy", help="look at a policy before anything runs, or approve it")
    actions = policy.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_policy_approve(actions)
    lint = add_command(
        actions, "lint", "what the policy can show on the prepared data, before any model is trained", _LINT
    )
    _add_policy(lint)
    lint.add_argument(
        "--churn",
        type=float,
        default=_CHURN,
        metavar="P",
        help="share of the examples that an unchanged candidate decides otherwise (default %(default)s)",
    )
    lint.add_argument(
        "--finalists",
        type=int,
        metavar="K",
        help="new candidates of the next run; by default the number of shortlist.slots",
    )
    lint.add_argument("--json", action="store_true", help="print canonical JSON")


def _add_attempts(commands: Parsers[argparse.ArgumentParser]) -> None:
    from leangate.attempts import HELP

    attempts = commands.add_parser("attempts", help="take over the attempts of another branch")
    actions = attempts.add_subparsers(dest="action", required=True, metavar="ACTION")
    parser = add_command(actions, "merge", "enter what another attempts.jsonl has and this one lacks", HELP)
    parser.add_argument("file", type=Path, metavar="FILE", help="attempts.jsonl of the other branch")


def _add_redact(commands: Parsers[argparse.ArgumentParser]) -> None:
    from leangate.redact import HELP

    parser = add_command(
        commands,
        "redact",
        "answer an erasure request: nobody can tell any more whose rows evidence holds",
        HELP,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of an example or a unit, as in the source")


def _add_search(commands: Parsers[argparse.ArgumentParser]) -> None:
    from leangate.search import HELP

    parser = add_command(
        commands, "search", "find recipes that no other beats on size, speed and accuracy at once", HELP
    )
    parser.add_argument("--trials", type=int, metavar="N", help="in place of search.trials in params.yaml")
    parser.add_argument("--resume", action="store_true", help="go on with the search that lies here")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write the winners into params.yaml as recipes; without --trials or --resume, that alone",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="database that machines share, for example postgresql://user@machine/name; by default a file "
        "in artifacts/search",
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes of one thread each")
    parser.add_argument("--json", action="store_true", help="print trials.json")


def _add_targets(commands: Parsers[argparse.ArgumentParser]) -> None:
    from leangate.targets import HELP

    parser = add_command(
        commands,
        "targets",
        "load an ONNX file with every other runtime that is installed, and compare answers",
        HELP,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the ONNX file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_verify(commands: Parsers[argparse.ArgumentParser]) -> None:
    from leangate.verify import HELP, add_arguments

    parser = add_command(
        commands,
        "verify",
        "check a bundle offline: digests, and every verdict derived anew from the evidence",
        HELP,
    )
    add_arguments(parser)


def _add_signing(commands: Parsers[argparse.ArgumentParser]) -> None:
    from leangate.keys import KEYS_HELP, SIGN_HELP

    keys = commands.add_parser("keys", help="make a key pair")
    actions = keys.add_subparsers(dest="action", required=True, metavar="ACTION")
    new = add_command(actions, "new", "write a new key pair into a folder", KEYS_HELP)
    new.add_argument("folder", type=Path, metavar="FOLDER")
    show = actions.add_parser("show", help="print the whole id of a public key, or of each in a folder")
    show.add_argument("file", type=Path, metavar="KEYS")
    parser = add_command(commands, "sign", "sign a bundle", SIGN_HELP)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the folder")


def _add_doctor(commands: Parsers[argparse.ArgumentParser]) -> None:
    from leangate.doctor import HELP

    parser = add_command(
        commands, "doctor", "ask an MLflow server whether it really refuses what was not proven", HELP
    )
    parser.add_argument("--registry", metavar="URI", help="by default MLFLOW_TRACKING_URI")
    parser.add_argument("--model", metavar="MODEL", help="a registered model that you may edit")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_waive(commands: Parsers[argparse.ArgumentParser]) -> None:
    from leangate.waive import HELP, add_arguments

    parser = add_command(
        commands, "waive", "let one finding that blocks through, signed and until a day", HELP
    )
    add_arguments(parser)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="leangate",
        description="Make a vision model small, prove it did no harm, let only proven ones through.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"leangate {leangate.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run `dvc repro`, then print the table of candidates")
    run.add_argument("targets", nargs="*", help="stages to reproduce; all of them by default")
    run.add_argument("--force", action="store_true", help="run every stage, changed or not")
    commands.add_parser("table", help="print the table of candidates of the last run")
    _add_policy_commands(commands)
    _add_attempts(commands)
    _add_redact(commands)
    _add_search(commands)
    _add_targets(commands)
    _add_signing(commands)
    _add_waive(commands)
    _add_doctor(commands)
    _add_verify(commands)
    add_promotion_commands(commands)
    _add_stages(commands)
    return parser


def _print(text: str, code: int) -> int:
    print(text, end="", flush=True)
    return code


def _dispatch(options: argparse.Namespace, root: Path) -> int:
    match options.command:
        case "gate":
            from leangate.judging import gate

            return _print(
                *gate(root, options.slot, options.policy, as_json=options.json, verbose=options.verbose)
            )
        case "policy" if options.action == "lint":
            from leangate.lint import lint

            return _print(
                *lint(
                    root,
                    options.policy,
                    churn=options.churn,
                    finalists=options.finalists,
                    as_json=options.json,
                )
            )
        case "redact":
            from leangate.redact import redact

            return _print(*redact(root, options.names))
        case "attempts":
            from leangate.attempts import merge

            return _print(*merge(root, options.file))
        case "search":
            from leangate.search import Options, search

            asked = Options(
                options.trials, options.resume, options.write, options.storage, options.jobs, options.json
            )
            return _print(*search(root, asked))
        case "targets":
            from leangate.targets import targets

            return _print(*targets(root, options.file, as_json=options.json))
        case "verify":
            from leangate.verify import verify

            return _print(
                *verify(
                    options.bundle,
                    options.trust,
                    as_json=options.json,
                    at=options.at,
                    restricted=options.restricted,
                )
            )
        case "keys":
            from leangate.keys import new_keys, show_key

            if options.action == "show":
                return _print(*show_key(options.file))
            return _print(*new_keys(options.folder))
        case "sign":
            from leangate.keys import sign

            return _print(*sign(root, options.bundle))
        case "doctor":
            from leangate.doctor import doctor

            return _print(*doctor(root, options.registry, options.model, as_json=options.json))
        case "waive":
            from leangate.waive import Asked, waive

            asked_for = {name: getattr(options, name) for name in Asked.__dataclass_fields__}
            return _print(*waive(root, Asked(**asked_for)))
        case "policy" | "approve" | "promote" | "rollback" | "revoke" | "history" | "ledger":
            return _print(*dispatch_promotion(options, root))
        case "table":
            from leangate.reproduce import describe_outcome

            return _print(f"{describe_outcome(root)}\n", 0)
        case _:
            from leangate.reproduce import reproduce

            return reproduce(root, options.targets, force=options.force)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = build_parser().parse_args(arguments)
    from pipeline.stages import STAGES, run_stage

    root = Path()
    if options.command in STAGES and options.command != _FOR_PEOPLE:
        matrix = {key: getattr(options, key) for key in STAGES[options.command]}
        return run_stage(options.command, matrix, root)
    again = "leangate search --resume" if options.command == "search" else "dvc repro"
    return run_command(lambda: _dispatch(options, root), f"`{again}` goes on where it stopped")
