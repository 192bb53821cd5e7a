# SPDX-License-Identifier: Apache-2.0
"""`registry.yaml`: whom a gated registry believes. It lies with the server, out of reach of its clients."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from checks.errors import InputError
from pipeline.attestation.keys import REVOKED, read_signer, read_trusted
from pipeline.params import load_yaml
from pipeline.section_errors import explain

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signer

__all__ = ["CONFIG_VARIABLE", "RegistryConfig", "Trust", "load_trust"]

CONFIG_VARIABLE = "LEANGATE_REGISTRY"
"""Environment variable of the server: path of `registry.yaml`."""


class RegistryConfig(BaseModel):
    """The file, typed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_: Literal["leangate/registry/1"] = Field(alias="schema")
    protected_aliases: tuple[str, ...] = Field(default=("production", "champion"), min_length=1)
    policy_owners: str = Field(min_length=1, description="folder of public keys: who approves policies")
    makers: str = Field(min_length=1, description="folder of public keys: whose signature on a bundle counts")
    ledger_key: str = Field(min_length=1, description="file of the private key that signs checkpoints")
    former_ledger_keys: str | None = Field(default=None, description="folder of public keys it had before")

    @field_validator("protected_aliases")
    @classmethod
    def _compared_without_case(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted({name.strip().casefold() for name in names}))


@dataclass(frozen=True)
class Trust:
    """What `registry.yaml` says, with the keys it names.

    Attributes:
        protected: Aliases that move only to what was proven, case folded.
        owners: Public keys by id: who approves policies.
        makers: Public keys by id: who signs bundles.
        signer: Signs checkpoints of the ledger.
        registry: Public keys by id, of `signer` and of those before it: what they signed, the registry wrote.
    """

    protected: frozenset[str]
    owners: Mapping[str, Key]
    makers: Mapping[str, Key]
    signer: Signer
    registry: Mapping[str, Key]


@dataclass(frozen=True)
class _Read:
    path: Path
    files: list[Path]
    state: tuple[Any, ...]
    trust: Trust


_cache: dict[str, _Read] = {}
"""What was read last, as one value: no thread sees the state of files beside keys of another state."""


def _watched(path: Path, config: RegistryConfig) -> list[Path]:
    names = (config.policy_owners, config.makers, config.ledger_key, config.former_ledger_keys)
    named = [path.parent / name for name in names if name is not None]
    inside = [file for place in named if place.is_dir() for file in sorted(place.iterdir())]
    # Beside a single key, too, a file says which keys are revoked.
    beside = [place.parent / REVOKED for place in named if not place.is_dir()]
    return [path, *named, *inside, *beside]


def _state(files: list[Path]) -> tuple[Any, ...]:
    found = []
    for file in files:
        try:
            stat = file.stat()
            found.append((str(file), stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            found.append((str(file), 0, 0, 0))
    return tuple(found)


def _read(path: Path) -> RegistryConfig:
    raw = load_yaml(path, InputError)
    try:
        return RegistryConfig.model_validate(raw)
    except ValidationError as error:
        raise InputError(
            "; ".join(explain(RegistryConfig, error)),
            where=str(path),
            hint="docs/promotion.md describes the keys",
        ) from error


def load_trust(environment: Mapping[str, str] = os.environ) -> Trust:
    """Read `registry.yaml` and the keys it names; what changed on disk counts at once.

    Paths in the file are relative to its folder.

    Raises:
        InputError: if the variable is not set, or anything the file names is missing or wrong.
    """
    named = environment.get(CONFIG_VARIABLE, "").strip()
    if not named:
        raise InputError(
            "expected the registry's configuration, got none",
            where=CONFIG_VARIABLE,
            hint="set it to the path of registry.yaml before the server starts",
        )
    path = Path(named)
    # Folders are watched beside their files, so that a new key is seen too.
    known = _cache.get("")
    if known is not None and known.path == path and known.state == _state(known.files):
        return known.trust
    config = _read(path)
    try:
        files = _watched(path, config)
    except OSError as error:
        raise InputError(
            f"expected keys that can be read, got {error.strerror}", where=str(error.filename or path)
        ) from error
    state = _state(files)
    signer = read_signer(str(path.parent / config.ledger_key))
    former = (
        {} if config.former_ledger_keys is None else read_trusted(path.parent / config.former_ledger_keys)
    )
    trust = Trust(
        protected=frozenset(config.protected_aliases),
        owners=read_trusted(path.parent / config.policy_owners),
        makers=read_trusted(path.parent / config.makers),
        signer=signer,
        registry={**former, signer.public_key.keyid: signer.public_key},
    )
    _cache[""] = _Read(path, files, state, trust)
    return trust
