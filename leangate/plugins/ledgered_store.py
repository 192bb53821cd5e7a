# SPDX-License-Identifier: Apache-2.0
"""MLflow's store of registered models, with a ledger: an act and its entry are one transaction."""

from __future__ import annotations

import inspect
import logging
import os
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import RegisteredModel, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

from checks.errors import EvidenceError, InputError, LeanGateError
from leangate.plugins.ledger_table import LedgerTable
from leangate.plugins.principal import principal
from pipeline.ledger.entries import Entry, Head, append
from pipeline.ledger.verification import export_lines, read_checkpoint
from pipeline.promotion.config import CONFIG_VARIABLE, load_trust

__all__ = [
    "LEDGER",
    "MAX_REASON",
    "Act",
    "LedgeredStore",
    "expect_kept",
    "folded",
    "numbered",
    "refused",
    "shown",
]

LEDGER = "leangate:ledger"
"""`get_registered_model` of this name, or of `leangate:ledger/N`, answers entries after the N-th, as tags."""

MAX_REASON = 1_000
"""Characters of a reason that is kept."""

_logger = logging.getLogger("leangate")
_SCHEME = "gated+"
_GOVERNED_ACTS = ("policy", "register", "approve", "promote", "revoke")
_PAGE = 200
_MAX_NAME = 256
_MAX_VERSION, _MAX_DIGITS = 2**31 - 1, 10
"""What the registry's own tables hold on every database."""
_MAX_ENTRY = 1024 * 1024
"""Characters of an entry: what is longer could not be exported and verified."""


@dataclass
class Act:
    """What an entry will say; filled in while it happens.

    Attributes:
        act: One of the ledger's.
        model: Name of the registered model, or nothing.
        version: Of it, or nothing.
        detail: What else there is to say.
        since: Time of the entry before it.
    """

    act: str
    model: str
    version: str = ""
    detail: dict[str, Any] = field(default_factory=dict)
    since: datetime = datetime(1970, 1, 1, tzinfo=UTC)


def folded(name: object) -> str:
    """Return a name as it is compared: what looks the same is the same."""
    return unicodedata.normalize("NFKC", str(name)).casefold().strip()


def shown(text: object) -> str:
    """Return what an entry keeps of a text that may be long."""
    return str(text)[:200]


def numbered(version: object) -> str:
    """Return the number of a version as the ledger spells it: MLflow takes `01` and ` 1` for 1, too."""
    try:
        return str(int(str(version)))
    except ValueError:
        return str(version)


def expect_kept(act: Act) -> None:
    """Refuse names and numbers that no entry could keep whole.

    Raises:
        InputError: saying which.
    """
    if len(act.model) > _MAX_NAME or "\x00" in act.model:
        raise InputError(
            f"expected the name of a model, at most {_MAX_NAME} characters and none of them NUL, "
            f"got {len(act.model)}",
            where="registered model",
        )
    digits = act.version.removeprefix("-")
    if digits.isdecimal() and (len(digits) > _MAX_DIGITS or not 0 <= int(act.version) <= _MAX_VERSION):
        raise InputError(f"expected the number of a version, got {shown(act.version)[:40]}", where="version")


def refused(error: LeanGateError) -> MlflowException:
    """Return a refusal as MLflow's clients get it: HTTP 403, never tried again."""
    hint = f" ({error.hint})" if error.hint else ""
    return MlflowException(f"LeanGate refuses: {_untold(f'{error}{hint}')}", error_code=PERMISSION_DENIED)


def _untold(words: str) -> str:
    """Return words without the folder of `registry.yaml`: where it lies on the server is nothing to tell."""
    named = os.environ.get(CONFIG_VARIABLE, "").strip()
    return words.replace(f"{Path(named).parent}/", "") if named else words


def _database(uri: str) -> str:
    """Return the database behind a URI; of PostgreSQL's drivers pg8000, unless another is named."""
    plain = uri.removeprefix(_SCHEME)
    if plain.startswith("postgresql:"):
        return "postgresql+pg8000" + plain.removeprefix("postgresql")
    return plain


class LedgeredStore(SqlAlchemyStore):
    """MLflow's store of registered models, which writes down what it does.

    Args:
        store_uri: `gated+sqlite:///...`, `gated+postgresql://...` or `gated+postgresql+DRIVER://...`.
        tracking_uri: Unused; MLflow passes it.
    """

    def __init__(self, store_uri: str | None = None, tracking_uri: str | None = None) -> None:
        del tracking_uri
        # No read replica: what was revoked a moment ago has to be seen.
        super().__init__(_database(store_uri or ""))
        self._ledger = LedgerTable(self.engine)
        self._local = threading.local()
        self._sessions: Any = self.ManagedSessionMaker  # type: ignore[has-type]
        self._read_only_known = "read_only" in inspect.signature(self._sessions).parameters
        # What the store does inside an act joins the act's transaction, so that entry and change are one.
        self.ManagedSessionMaker = self._joined

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a gated store holds locks and is not pickled")

    @contextmanager
    def _joined(self, **options: Any) -> Iterator[Any]:
        session = getattr(self._local, "session", None)
        if session is None:
            with self._sessions(**options) as session:
                yield session
        else:
            yield session
            session.flush()

    def _writing(self) -> Any:
        return self._sessions(**({"read_only": False} if self._read_only_known else {}))

    # What is written down

    def _record(self, session: Any, head: Head, act: Act) -> None:
        try:
            signer = load_trust().signer
        except InputError:
            signer = None  # nothing is promoted then; what was tried is written down all the same
        entry = append(head, act.act, act.model, act.version, act.detail, principal())
        if len(entry.line) > _MAX_ENTRY:
            raise EvidenceError(
                f"expected what an entry of {_MAX_ENTRY} characters can keep, got {len(entry.line)}",
                where="ledger",
            )
        self._ledger.add(session, head, entry, signer)

    @contextmanager
    def _act(self, act: str, model: object = "", version: object = "", **detail: Any) -> Iterator[Act]:
        """Do something and write it down in one transaction; a refusal is written down in one of its own."""
        doing = Act(act, str(model), numbered(version), detail)
        try:
            expect_kept(doing)
        except InputError as error:
            self._record_refusal(doing, str(error))
            raise refused(error) from error
        try:
            with self._writing() as session:
                head = self._ledger.lock(session)
                doing.since = head.at
                self._local.session = session
                try:
                    yield doing
                finally:
                    self._local.session = None
                self._record(session, head, doing)
        except MlflowException as error:
            if isinstance(
                cause := error.__cause__, LeanGateError
            ):  # MLflow's session wraps what it rolls back
                self._record_refusal(doing, str(cause))
                raise refused(cause) from cause
            if act not in _GOVERNED_ACTS:
                raise
            if error.get_http_status_code() < 500:
                self._record_refusal(doing, str(error))
                raise
            raise self._failed(doing, error.__cause__ or error) from error
        except Exception as error:
            if act not in _GOVERNED_ACTS:
                raise
            raise self._failed(doing, error) from error

    def _failed(self, act: Act, error: BaseException) -> MlflowException:
        """Return the refusal of what broke: answered 500, it would be tried again for minutes.

        What a database says of itself is for the server's log, not for its clients.
        """
        _logger.error("the registry could not %s", act.act, exc_info=error)
        why = EvidenceError(f"the registry could not {act.act}: {type(error).__name__}; its log says why")
        self._record_refusal(act, str(why))
        return refused(why)

    def _record_refusal(self, act: Act, reason: str, *, once: bool = False) -> None:
        """Write a refusal down; where even that fails, the gate is closed all the same.

        What a client sent may be of any length, and is kept as far as an entry keeps a text.
        """
        model = act.model[:_MAX_NAME].replace("\x00", " ")
        version = shown(act.version)
        detail = {"attempted": act.act, "reason": _untold(reason)[:MAX_REASON]}
        detail |= {key: shown(value) for key, value in act.detail.items() if key != "proof"}
        try:
            with self._writing() as session:
                head = self._ledger.lock(session)
                last = self._ledger.last(session, model) if once else None
                if last is None or dict(last.detail) != detail or last.version != version:
                    self._record(session, head, Act("refuse", model, version, detail))
        except Exception:
            _logger.exception("a refusal could not be written into the ledger: %s", detail["attempted"])

    def _refuse(self, act: str, model: object, version: object, why: LeanGateError, **detail: Any) -> None:
        self._record_refusal(Act(act, str(model), numbered(version), detail), str(why))
        raise refused(why)

    def _entries(self, name: str, acts: Sequence[str], everywhere: Sequence[str] = ()) -> list[Entry]:
        with self.ManagedSessionMaker() as session:
            rows = self._ledger.select(session, name, acts, everywhere)
        # Outside: MLflow's session would turn what is wrong with an entry into an error of its own.
        return self._ledger.read(rows, load_trust().registry)

    # Reading the ledger

    def get_registered_model(self, name: str) -> RegisteredModel:
        """Return a registered model; under the reserved name a page of the ledger."""
        if name != LEDGER and not str(name).startswith(f"{LEDGER}/"):
            return super().get_registered_model(name)
        start = str(name).removeprefix(LEDGER).removeprefix("/") or "0"
        if not (start.isascii() and start.isdecimal() and len(start) < 16):
            raise refused(InputError(f"expected the number of an entry, got {start!r}"[:100], where=LEDGER))
        with self.ManagedSessionMaker() as session:
            page = self._ledger.page(session, int(start), _PAGE)
        lines = export_lines((line, read_checkpoint(mark, f"entry {number}")) for number, line, mark in page)
        tags = [
            RegisteredModelTag(f"{number:016d}", line)
            for (number, _, _), line in zip(page, lines, strict=True)
        ]
        try:
            protected = " ".join(sorted(load_trust().protected))
        except InputError:
            protected = ""
        return RegisteredModel(LEDGER, 0, 0, protected, [], tags)
