# SPDX-License-Identifier: Apache-2.0
"""The ledger in the registry's own database, written in the transaction of what it tells of."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from checks.errors import EvidenceError
from pipeline.ledger.entries import (
    Checkpoint,
    Entry,
    Head,
    append,
    expect_signed,
    parse_entry,
    sign_checkpoint,
)
from pipeline.ledger.merkle import Frontier
from pipeline.ledger.verification import START, read_checkpoint

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

__all__ = ["OPENING", "LedgerTable"]

OPENING = ("policy", "register", "approve", "promote")
"""Acts by whose entries the gate opens."""

_MAX_NAME = 256
_metadata = sa.MetaData()

# Integers of 64 bits are no automatic keys on SQLite, and are not meant to be here.
_entries = sa.Table(
    "leangate_ledger",
    _metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("act", sa.String(32), nullable=False, index=True),
    sa.Column("model", sa.String(_MAX_NAME), nullable=False, index=True),
    sa.Column("version", sa.String(16), nullable=False),
    sa.Column("entry", sa.Text, nullable=False),
    sa.Column("checkpoint", sa.Text, nullable=False),
)
_head = sa.Table(
    "leangate_ledger_head",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("ledger", sa.String(32), nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("frontier", sa.Text, nullable=False),
    sa.Column("last", sa.String(64), nullable=False),
    sa.Column("at", sa.String(40), nullable=False),
)


class LedgerTable:
    """Reads and appends; there is no way to change or remove an entry."""

    def __init__(self, engine: sa.Engine) -> None:
        try:
            _metadata.create_all(engine)
        except (OperationalError, ProgrammingError, IntegrityError):
            # Another worker of the same server was faster; if it was something else, this says so.
            _metadata.create_all(engine)
        with engine.connect() as connection:
            opened = connection.execute(sa.select(_head.c.id)).first()
        if opened is None:
            self._open(engine)

    def _open(self, engine: sa.Engine) -> None:
        start = Head(secrets.token_hex(16), Frontier(), START, datetime(1970, 1, 1, tzinfo=UTC))
        values = {
            "id": 1,
            "ledger": start.ledger,
            "size": 0,
            "frontier": "[]",
            "last": START,
            "at": start.at.isoformat(),
        }
        try:
            with engine.begin() as connection:
                connection.execute(sa.insert(_head).values(values))
                self.add(connection, start, append(start, "open", "", "", {}, None), None)
        except IntegrityError:
            return

    @staticmethod
    def lock(session: Any) -> Head:
        """Return the end of the ledger, which nobody else can move before this transaction is over."""
        # A write that changes nothing: it takes the lock on every database there is.
        session.execute(sa.update(_head).where(_head.c.id == 1).values(id=1))
        row = session.execute(sa.select(_head)).one()
        frontier = Frontier(int(row.size), tuple(json.loads(row.frontier)))
        return Head(row.ledger, frontier, row.last, datetime.fromisoformat(row.at))

    @staticmethod
    def add(session: Any, head: Head, entry: Entry, signer: Signer | None) -> None:
        """Append an entry that follows `head`, with its checkpoint."""
        frontier = head.frontier.add(entry.leaf)
        checkpoint = (
            Checkpoint(frontier.size, frontier.root)
            if signer is None
            else sign_checkpoint(entry, frontier, signer)
        )
        session.execute(
            sa.insert(_entries).values(
                number=entry.number,
                act=entry.act,
                model=entry.model[:_MAX_NAME],
                version=entry.version[:16],
                entry=entry.line,
                checkpoint=json.dumps(checkpoint.to_json(), sort_keys=True),
            )
        )
        session.execute(
            sa.update(_head)
            .where(_head.c.id == 1)
            .values(
                size=frontier.size,
                frontier=json.dumps(list(frontier.hashes)),
                last=entry.leaf,
                at=entry.at.isoformat(),
            )
        )

    @staticmethod
    def select(session: Any, model: str, acts: Sequence[str], everywhere: Sequence[str] = ()) -> list[Any]:
        """Return rows in order: of one model by acts, and of all models by the acts in `everywhere`."""
        wanted = sa.and_(_entries.c.model == model, _entries.c.act.in_(acts))
        if everywhere:
            wanted = sa.or_(wanted, _entries.c.act.in_(everywhere))
        return list(session.execute(sa.select(_entries).where(wanted).order_by(_entries.c.number)))

    @staticmethod
    def read(rows: Sequence[Any], keys: Mapping[str, Key]) -> list[Entry]:
        """Return the entries in rows.

        Raises:
            EvidenceError: if one that could open the gate was not signed by any of `keys`.
        """
        found = []
        for row in rows:
            where = f"ledger entry {row.number}"
            entry = parse_entry(row.entry, where)
            if (entry.number, entry.act, entry.model[:_MAX_NAME]) != (row.number, row.act, row.model):
                raise EvidenceError("expected the entry by its own number, act and model", where=where)
            if entry.act in OPENING:
                expect_signed(entry, read_checkpoint(json.loads(row.checkpoint), where), keys, where)
            found.append(entry)
        return found

    @staticmethod
    def last(session: Any, model: str) -> Entry | None:
        """Return the last entry of a model."""
        row = session.execute(
            sa.select(_entries.c.number, _entries.c.entry)
            .where(_entries.c.model == model)
            .order_by(_entries.c.number.desc())
            .limit(1)
        ).first()
        return None if row is None else parse_entry(row.entry, f"ledger entry {row.number}")

    @staticmethod
    def page(session: Any, after: int, count: int) -> list[tuple[int, str, Mapping[str, Any]]]:
        """Return the next entries of the whole ledger: number, line and checkpoint."""
        rows = session.execute(
            sa.select(_entries).where(_entries.c.number > after).order_by(_entries.c.number).limit(count)
        )
        return [(int(row.number), str(row.entry), json.loads(row.checkpoint)) for row in rows]
