# SPDX-License-Identifier: Apache-2.0
"""Optuna's storage and sampler, behind the words of this project.

What a trial is, was measured at, and became of stands in its attributes, as JSON; Optuna's own states and
values are there for its sampler. A trial's numbers depend on the seed, on its place and on the trials before
it, never on how often the search was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from checks.errors import InputError, StorageError
from pipeline.params import Params
from pipeline.search.bench import Measured
from pipeline.search.changes import describe_changes
from pipeline.search.space import Drawn, draw

if TYPE_CHECKING:
    import optuna

__all__ = ["MAXIMIZED", "Entry", "Handle", "Study", "losses_of", "named_errors", "open_study"]

MAXIMIZED = frozenset({"accuracy", "worst_slice_accuracy", "robust_accuracy"})
_NAME = "leangate-search"
_MOST_DEATHS = 3
_PATIENCE_SECONDS = 120.0
"""How long a writer waits for another one."""


@dataclass(frozen=True)
class Entry:
    """One trial as it stands in the storage.

    Attributes:
        number: Optuna's.
        slot: Place in the search, from 0.
        bracket: With whom it trains.
        owner: The process that took it on.
        state: `running`, `finished`, `dropped` or `failed`.
        reason: Why it was dropped or failed, else empty.
        recipe: Passes and precision; empty until they are drawn.
        lengths: How many of the passes are done after each rung.
        rungs: Objectives after each rung so far.
        epochs: Spent on it, in epochs of the baseline.
        sha256: Of its file after the last of these rungs, else empty.
    """

    number: int
    slot: int
    bracket: int
    owner: str
    state: str
    reason: str
    recipe: Mapping[str, Any]
    lengths: tuple[int, ...]
    rungs: tuple[Mapping[str, float], ...]
    epochs: float
    sha256: str


def losses_of(objectives: Sequence[str], values: Mapping[str, float]) -> list[float]:
    """Return the objectives' values in their order, less is better."""
    return [-values[name] if name in MAXIMIZED else values[name] for name in objectives]


def _entry(frozen: optuna.trial.FrozenTrial) -> Entry:
    place, end = frozen.user_attrs["place"], frozen.user_attrs.get("end", {})
    drawn, measured = frozen.user_attrs.get("drawn", {}), frozen.user_attrs.get("measured", {})
    return Entry(
        number=frozen.number,
        slot=place["slot"],
        bracket=place["bracket"],
        owner=place["owner"],
        state=end.get("state", "running"),
        reason=end.get("reason", ""),
        recipe=drawn.get("recipe", {}),
        lengths=tuple(drawn.get("lengths", ())),
        rungs=tuple(measured.get("rungs", ())),
        epochs=measured.get("epochs", 0.0),
        sha256=measured.get("sha256", ""),
    )


class _Seeded:
    """Draws each number with a seed of its own, so that a draw cut short goes on as if it had not been."""

    def __init__(self, study: optuna.Study, trial: optuna.Trial, seed: int, slot: int, startup: int) -> None:
        self._study, self._trial, self._startup = study, trial, startup
        self._key = f"{seed}/{slot}"

    def _reseed(self, name: str) -> None:
        from optuna.samplers import TPESampler

        digest = hashlib.sha256(f"{self._key}/{name}".encode()).digest()
        self._study.sampler = TPESampler(
            seed=int.from_bytes(digest[:4], "big"), n_startup_trials=self._startup, multivariate=False
        )

    def suggest_categorical(self, name: str, choices: Sequence[Any], /) -> Any:
        self._reseed(name)
        return self._trial.suggest_categorical(name, choices)

    def suggest_float(self, name: str, low: float, high: float, /, *, log: bool = False) -> float:
        self._reseed(name)
        return self._trial.suggest_float(name, low, high, log=log)

    def suggest_int(self, name: str, low: int, high: int, /) -> int:
        self._reseed(name)
        return self._trial.suggest_int(name, low, high)


class Handle:
    """One trial of this process's: its recipe, and where to record what came of it."""

    def __init__(self, study: Study, trial: optuna.Trial, entry: Entry, drawn: Drawn) -> None:
        self.slot, self.drawn = entry.slot, drawn
        self._study, self._trial = study, trial
        self.rungs = list(entry.rungs)
        self.state, self._epochs = entry.state, entry.epochs

    @property
    def open(self) -> bool:
        """Whether nothing was decided on it yet."""
        return self.state == "running"

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Note that this process works on it: should it die, that will be known."""
        deaths = self._trial.user_attrs.get("deaths", 0)
        self._trial.set_user_attr("deaths", deaths + 1)
        try:
            yield
        finally:
            if self.open:
                self._trial.set_user_attr("deaths", deaths)

    @property
    def deadly(self) -> bool:
        """Whether processes died in it so often that another would, too."""
        return int(self._trial.user_attrs.get("deaths", 0)) >= _MOST_DEATHS

    def record(self, measured: Measured) -> None:
        """Record what the next rung gave."""
        self.rungs.append(measured.values)
        self._epochs += measured.epochs
        record = {"rungs": self.rungs, "epochs": self._epochs, "sha256": measured.sha256}
        self._trial.set_user_attr("measured", record)

    def close(self, state: str, reason: str = "") -> None:
        """Record what became of it: `finished`, `dropped` or `failed`."""
        self.state = state
        self._trial.set_user_attr("end", {"state": state, "reason": reason})
        self._study.tell(self._trial, state, self.rungs)


class Study:
    """The trials of one search, in the database at the address `shown`."""

    def __init__(self, study: optuna.Study, params: Params, shown: str) -> None:
        self._study, self._params, self.shown = study, params, shown

    def entries(self) -> list[Entry]:
        """Return all trials by slot; one whose place was never recorded was never begun."""
        found = [
            _entry(frozen)
            for frozen in self._study.get_trials(deepcopy=False)
            if "place" in frozen.user_attrs
        ]
        return sorted(found, key=lambda entry: (entry.slot, entry.number))

    def tell(self, trial: optuna.Trial, state: str, rungs: Sequence[Mapping[str, float]]) -> None:
        """Tell the sampler; of a trial that was dropped early it learns what the last rung gave."""
        from optuna.trial import TrialState

        if state == "failed" or not rungs:
            self._study.tell(trial, state=TrialState.FAIL)
        else:
            self._study.tell(trial, [float(rungs[-1][name]) for name in self._params.search.objectives])

    def ask(self, owner: str, bracket: int, size: int) -> Handle:
        """Draw the next trial of a bracket of `size`; only one process may ask at a time."""
        slot = max((entry.slot for entry in self.entries()), default=-1) + 1
        trial = self._study.ask()
        place = {"slot": slot, "bracket": bracket, "size": size, "owner": owner}
        trial.set_user_attr("place", place)
        return self._draw(trial, slot)

    def _draw(self, trial: optuna.Trial, slot: int) -> Handle:
        search = self._params.search
        seed = self._params.seed if search.seed is None else search.seed
        drawn = draw(_Seeded(self._study, trial, seed, slot, search.bracket), self._params, slot)
        if "drawn" not in trial.user_attrs:
            trial.set_user_attr("drawn", {"recipe": drawn.to_json(), "lengths": drawn.lengths})
        frozen = next(
            entry for entry in self._study.get_trials(deepcopy=False) if entry.number == trial.number
        )
        return Handle(self, trial, _entry(frozen), drawn)

    def interrupted(self, token: str) -> list[tuple[str, int]]:
        """Return owner and number of every bracket that processes of this folder left unfinished."""
        mine = [entry for entry in self.entries() if entry.owner.startswith(token)]
        self._settle(mine)
        return sorted({(entry.owner, entry.bracket) for entry in mine if entry.state == "running"})

    def _settle(self, entries: Sequence[Entry]) -> None:
        """Tell the sampler of trials whose process died after their end was recorded, before it was told."""
        import optuna

        frozen = {trial.number: trial for trial in self._study.get_trials(deepcopy=False)}
        for entry in entries:
            trial = frozen[entry.number]
            if entry.state != "running" and not trial.state.is_finished():
                self.tell(optuna.trial.Trial(self._study, trial._trial_id), entry.state, entry.rungs)

    def resume(self, owner: str, bracket: int) -> tuple[list[Handle], int]:
        """Return the trials of a bracket, and how many were meant to be in it."""
        import optuna

        handles, size = [], 0
        for frozen in self._study.get_trials(deepcopy=False):
            place = frozen.user_attrs.get("place", {})
            if (place.get("owner"), place.get("bracket")) != (owner, bracket):
                continue
            size = place["size"]
            trial = optuna.trial.Trial(self._study, frozen._trial_id)
            handles.append(self._draw(trial, place["slot"]))
        return handles, size


def _refused(shown: str, error: Exception) -> StorageError:
    said = error.__cause__ or error  # Optuna only guesses; what the database said stands behind it
    first = (str(said).splitlines() or [type(said).__name__])[0]
    return StorageError(
        f"expected a database that can be read and written, got {first}",
        where=shown,
        hint="free disk space, fix permissions, or name another one with --storage",
    )


@contextlib.contextmanager
def named_errors(shown: str) -> Iterator[None]:
    """Say in a sentence what a database refuses, also long after it was opened.

    Args:
        shown: Its address, for messages.

    Raises:
        StorageError: if it cannot be read or written.
    """
    import optuna
    import sqlalchemy

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, optuna.exceptions.OptunaError) as error:
        raise _refused(shown, error) from error


@contextlib.contextmanager
def _opening(shown: str) -> Iterator[None]:
    import sqlalchemy

    with named_errors(shown):
        try:
            yield
        except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ImportError) as error:
            raise InputError(
                f"expected the address of a database, got {type(error).__name__}",
                where=f"--storage {shown}",
                hint="for example sqlite:///search.db or postgresql://user@machine/name, with its driver",
            ) from error
        except RuntimeError as error:  # tables of another version of Optuna's
            raise _refused(shown, error) from error


def _shown(url: str) -> str:
    """The address without its password."""
    import sqlalchemy

    try:
        return sqlalchemy.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return "(unreadable)"


def _prepare_file(path: str) -> None:
    """Have SQLite write ahead: safe against a kill and a power cut, at one write to the disk a change."""
    with contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")


def _open(url: str, directions: Sequence[Literal["minimize", "maximize"]]) -> optuna.Study:
    import optuna
    import sqlalchemy

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    lies_in = sqlalchemy.make_url(url)
    arguments: dict[str, Any] = {}
    if lies_in.get_backend_name() == "sqlite" and lies_in.database:
        _prepare_file(lies_in.database)
        arguments = {"connect_args": {"timeout": _PATIENCE_SECONDS}}
    storage = optuna.storages.RDBStorage(url, engine_kwargs=arguments)
    return optuna.create_study(
        storage=storage,
        study_name=_NAME,
        directions=list(directions),
        load_if_exists=True,
        # Never the default, which for some studies draws all numbers of a trial when it is asked for.
        sampler=optuna.samplers.TPESampler(multivariate=False, seed=0),
    )


def open_study(
    url: str, params: Params, identity: Mapping[str, str], settings: Mapping[str, Any], *, resume: bool
) -> Study:
    """Open the search that lies at `url`, or begin one there.

    Args:
        url: Of a database, as SQLAlchemy writes it; no other storage of Optuna's is used, see
            `docs/decisions/0007-search-with-optuna.md`.
        params: Section `search` says what is searched.
        identity: What the search is about: name to digest.
        settings: What the digest `settings` is of: recorded to say what was changed since.
        resume: Go on with trials that are there; else there must be none.

    Raises:
        InputError: if a search of something else lies there, or one that was not to be gone on with.
        StorageError: if the database cannot be read or written.
    """
    shown = _shown(url)
    directions: list[Literal["minimize", "maximize"]] = [
        "maximize" if name in MAXIMIZED else "minimize" for name in params.search.objectives
    ]
    with _opening(shown):
        study = _open(url, directions)
        known = study.user_attrs.get("identity")
        if known is None:
            study.set_user_attr("settings", dict(settings))
            study.set_user_attr("identity", dict(identity))
            known = dict(identity)
        changes = describe_changes(study.user_attrs.get("settings"), settings)
        trials = len(study.get_trials(deepcopy=False))
    other = sorted(name for name in {*known, *identity} if known.get(name) != identity.get(name))
    if other:
        raise InputError(
            f"expected a search on this {', '.join(identity)}, got one on other {', '.join(other)}"
            + (changes if "settings" in other else ""),
            where=shown,
            hint="its trials cannot be compared: remove artifacts/search to begin anew, put back what was "
            "changed, or name another database with --storage",
        )
    if trials and not resume:
        raise InputError(
            f"expected no search yet, got one with {trials} trials",
            where=shown,
            hint="go on with --resume, or remove artifacts/search to begin anew",
        )
    return Study(study, params, shown)
