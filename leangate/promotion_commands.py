# SPDX-License-Identifier: Apache-2.0
"""Arguments of the commands on a gated registry and its ledger."""

from __future__ import annotations

import argparse
from pathlib import Path

from leangate.arguments import Parsers, add_command

__all__ = ["add_policy_approve", "add_promotion_commands", "dispatch_promotion"]


def _model(parser: argparse.ArgumentParser, *, version: bool, alias: bool) -> None:
    parser.add_argument("model", metavar="MODEL", help="name of the registered model")
    if version:
        parser.add_argument("version", metavar="VERSION", help="its number")
    if alias:
        parser.add_argument("--alias", default="production", help="production by default")


def add_policy_approve(actions: Parsers[argparse.ArgumentParser]) -> None:
    """Add `policy approve`."""
    from leangate.promotion import POLICY_HELP

    parser = add_command(
        actions, "approve", "let what is judged under a policy be promoted, as its owner", POLICY_HELP
    )
    parser.add_argument("policy", type=Path, nargs="?", default=Path("policy.yaml"), metavar="FILE")
    parser.add_argument(
        "--model",
        action="append",
        required=True,
        metavar="MODEL",
        help="registered model; may be given again",
    )
    parser.add_argument(
        "--approvers", type=Path, metavar="KEYS", help="folder of public keys (*.pub, *.pem), or one of them"
    )
    parser.add_argument(
        "--approvals", type=int, default=1, metavar="N", help="how many of them; 1 by default"
    )
    parser.add_argument("--until", required=True, metavar="DAY", help="last day, UTC, as 2027-01-31")


def add_promotion_commands(commands: Parsers[argparse.ArgumentParser]) -> None:
    """Add approve, promote, rollback, revoke, history and ledger."""
    from leangate import ledger, promotion

    parser = add_command(
        commands, "approve", "agree that a version moves to an alias", promotion.APPROVE_HELP
    )
    _model(parser, version=True, alias=True)
    parser.add_argument("--until", metavar="DAY", help="last day, UTC; 30 days from now by default")
    parser = add_command(commands, "promote", "move an alias to a proven version", promotion.PROMOTE_HELP)
    _model(parser, version=True, alias=True)
    parser = add_command(
        commands, "rollback", "move an alias back to the version before", promotion.ROLLBACK_HELP
    )
    _model(parser, version=False, alias=True)
    parser.add_argument("--to", metavar="VERSION", help="by default the one that held it last and still may")
    parser = add_command(commands, "revoke", "say that a version never counts again", promotion.REVOKE_HELP)
    _model(parser, version=True, alias=False)
    parser.add_argument("--reason", required=True, metavar="TEXT", help="kept in the ledger")
    parser = add_command(
        commands, "history", "what was in production when, by whom, on what evidence", ledger.HISTORY_HELP
    )
    _model(parser, version=False, alias=False)
    parser.add_argument("--at", metavar="DATE", help="a day (its end) or a time, UTC: only what held then")
    parser.add_argument(
        "--ledger", type=Path, metavar="FILE", help="an exported ledger, in place of the registry"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser = commands.add_parser("ledger", help="export or verify the record of a registry")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    parser = add_command(actions, "export", "write it into a file", ledger.EXPORT_HELP)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--checkpoint", type=Path, metavar="JSON", help="file for the last checkpoint: keep it"
    )
    parser = add_command(actions, "verify", "check an exported file offline", ledger.VERIFY_HELP)
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument(
        "--trust", type=Path, action="append", default=[], metavar="KEYS", help="the registry's public keys"
    )
    parser.add_argument("--checkpoint", type=Path, metavar="JSON", help="file of a checkpoint kept earlier")


def dispatch_promotion(options: argparse.Namespace, root: Path) -> tuple[str, int]:
    """Run one of them; return what to print, and the exit code."""
    from leangate import ledger, promotion

    match options.command:
        case "policy":
            return promotion.approve_policy(
                root, options.policy, options.model, options.approvers, options.approvals, options.until
            )
        case "approve":
            return promotion.approve(root, options.model, options.version, options.alias, options.until)
        case "promote":
            return promotion.promote(root, options.model, options.version, options.alias)
        case "rollback":
            return promotion.rollback(root, options.model, options.alias, options.to)
        case "revoke":
            return promotion.revoke(root, options.model, options.version, options.reason)
        case "history":
            return ledger.history(root, options.model, options.at, options.ledger, as_json=options.json)
        case _:
            if options.action == "export":
                return ledger.export(root, options.file, options.checkpoint)
            return ledger.verify(options.file, options.trust, options.checkpoint)
