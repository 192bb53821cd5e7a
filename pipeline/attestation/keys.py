# SPDX-License-Identifier: Apache-2.0
"""Ed25519 keys: made, read from a file or the environment, or held by a command that signs."""

from __future__ import annotations

import base64
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from checks.errors import InputError, StorageError
from pipeline.plain import clean, shorten

if TYPE_CHECKING:
    from securesystemslib.signer import Key, Signature, Signer

__all__ = [
    "KEY_VARIABLES",
    "PRIVATE",
    "PUBLIC",
    "find_signer",
    "make_keys",
    "need_signer",
    "parse_public_key",
    "public_pem",
    "read_revoked",
    "read_signer",
    "read_trusted",
]

PRIVATE, PUBLIC, REVOKED = "leangate.key", "leangate.pub", "revoked"
KEY_VARIABLES = ("LEANGATE_SIGNING_KEY", "LEANGATE_SIGNING_COMMAND", "LEANGATE_SIGNING_PUBLIC_KEY")

_MAX_BYTES = 64 * 1024
_MAX_KEYS = 1_000
_MAX_ENTRIES = 10_000
_KEY_ID = re.compile(r"[0-9a-f]{64}")
_SECONDS = 60
_SIGNATURE_BYTES = 64
_MOST_SHOWN = 200
_REPEATED = 16
"""Characters in a row by which the last words of a command are known as what it was given."""
_PEM = re.compile(r"\s*-----BEGIN [A-Z ]+-----")


def make_keys(folder: Path) -> str:
    """Write a new key pair into `folder`, the private key for its owner alone, and return the key's id.

    Raises:
        InputError: if a key is there already: what it signed could not be signed again.
        StorageError: if the files cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )
    from securesystemslib.signer import SSlibKey

    for name in (PRIVATE, PUBLIC):
        if (folder / name).exists():
            raise InputError(
                "expected no key there yet, got one",
                where=str(folder / name),
                hint="name another folder; keys are never overwritten",
            )
    private = Ed25519PrivateKey.generate()
    secret = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shown = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data, mode in ((PRIVATE, secret, 0o600), (PUBLIC, shown, 0o644)):
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            made.append(folder / name)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise StorageError(
            f"expected to write the keys, got {error.strerror}", where=str(error.filename or folder)
        ) from error
    key_id: str = SSlibKey.from_crypto(private.public_key()).keyid
    return key_id


def _read(path: Path, what: str) -> bytes:
    try:
        if not path.is_file():
            raise InputError(f"expected {what}, got no such file", where=str(path))
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"expected {what}, got a file over {_MAX_BYTES} bytes", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"expected {what}, got {error.strerror}", where=str(path)) from error


def parse_public_key(data: bytes, where: str) -> Key:
    """Return the Ed25519 public key in PEM.

    Raises:
        InputError: if it is none.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from securesystemslib.signer import SSlibKey

    try:
        key = load_pem_public_key(data)
    except Exception as error:  # several classes, without a base of their own
        raise InputError("expected an Ed25519 public key in PEM, got something else", where=where) from error
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"expected an Ed25519 public key, got {type(key).__name__}", where=where)
    return SSlibKey.from_crypto(key)


def public_pem(key: Key) -> str:
    """Return an Ed25519 public key in PEM."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.keyval["public"]))
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _key_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files: list[Path] = []
    for number, file in enumerate(path.iterdir()):
        if number >= _MAX_ENTRIES:
            raise InputError(
                f"expected a folder of keys, got more than {_MAX_ENTRIES} files", where=str(path)
            )
        if file.suffix in (".pub", ".pem"):
            files.append(file)
    if not 1 <= len(files) <= _MAX_KEYS:
        raise InputError(
            f"expected 1 to {_MAX_KEYS} public keys (*.pub, *.pem), got {len(files)}", where=str(path)
        )
    return sorted(files)


def read_trusted(path: Path) -> dict[str, Key]:
    """Return the public keys of a folder (`*.pub`, `*.pem`), or of one file, by their ids, less the revoked.

    Raises:
        InputError: if there is none, a file is no Ed25519 public key, or `revoked` there is malformed.
    """
    try:
        files = _key_files(path)
    except OSError as error:
        raise InputError(f"expected public keys, got {error.strerror}", where=str(path)) from error
    keys = [parse_public_key(_read(file, "a public key"), str(file)) for file in files]
    revoked = read_revoked(path)
    return {key.keyid: key for key in keys if key.keyid not in revoked}


def read_revoked(path: Path) -> dict[str, str]:
    """Return the keys that no longer count, as the file `revoked` beside the keys names them.

    One a line: the key's id, then, if known, the day from which on it is not to be trusted, then why. The
    day is told and changes nothing: a bundle holds no time, and whoever has a stolen key signs as of any day.

    Args:
        path: Folder of keys, or one key, in whose folder the file is looked for.

    Returns:
        Key id to words for a message: ` (revoked since 2026-03-01: stolen)`.

    Raises:
        InputError: naming the line that is none; a revocation that cannot be read is never passed over.
    """
    file = (path if path.is_dir() else path.parent) / REVOKED
    if not file.exists() and not file.is_symlink():
        return {}
    try:
        lines = _read(file, "ids of revoked keys").decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError("expected ids of revoked keys in UTF-8, got other bytes", where=str(file)) from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        key, day, why = words[0], "".join(words[1:2]), " ".join(words[2:])
        try:
            if not _KEY_ID.fullmatch(key):
                raise ValueError(key)
            since = f" since {date.fromisoformat(day)}" if day else ""
        except ValueError as error:
            raise InputError(
                f"expected a key's id of 64 hexadecimal digits and perhaps a day, got {clean(line)[:80]!r}",
                where=f"{file} line {number}",
                hint="as in: 66f9f0e5... 2026-03-01 laptop stolen",
            ) from error
        found[key] = f" (revoked{since}{': ' if why else ''}{clean(why)[:80]})"
    return found


def _last_words(stderr: bytes, payload: bytes) -> str:
    """The last line that a command wrote, safe to be shown; never what it was to sign."""
    lines = stderr[-_MAX_BYTES:].decode("utf-8", "replace").strip().splitlines()
    if not lines:
        return ""
    said = shorten(lines[-1].strip(), _MOST_SHOWN)
    forms = (payload.decode("utf-8", "replace"), base64.b64encode(payload).decode(), payload.hex())
    pieces = [said[start : start + _REPEATED] for start in range(len(said) - _REPEATED + 1)]
    if any(piece in form for piece in pieces for form in forms):
        return ", and on standard error what it was to sign, which is not shown"
    return f": {said}"


class _CommandSigner:
    """Signs by a command: it gets the bytes on standard input, and answers the signature in base64."""

    def __init__(self, command: str, public_key: Key) -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise InputError(f"expected a command, got {error}", where="LEANGATE_SIGNING_COMMAND") from error
        if not self._command:
            raise InputError("expected a command, got blanks", where="LEANGATE_SIGNING_COMMAND")
        self.public_key = public_key

    def sign(self, payload: bytes) -> Signature:
        """Return the signature, checked.

        Raises:
            InputError: if the command fails, with its last words, or answers no signature of this key.
        """
        from securesystemslib.exceptions import UnverifiedSignatureError
        from securesystemslib.signer import Signature

        where = "LEANGATE_SIGNING_COMMAND"
        try:
            # The user's own words, from the user's own environment; no shell reads them.
            done = subprocess.run(  # noqa: S603
                self._command, input=payload, capture_output=True, check=False, timeout=_SECONDS
            )
        except (OSError, subprocess.SubprocessError) as error:
            came = error.strerror if isinstance(error, OSError) else f"no end within {_SECONDS} s"
            raise InputError(f"expected a command that signs, got {came}", where=where) from error
        if done.returncode:
            raise InputError(
                f"expected a signature from the command, got exit status {done.returncode}"
                f"{_last_words(done.stderr, payload)}",
                where=where,
            )
        try:
            raw = base64.b64decode(done.stdout.strip(), validate=True)
        except ValueError as error:
            raise InputError(
                f"expected a signature in base64 from the command, got {len(done.stdout)} other bytes",
                where=where,
            ) from error
        if len(raw) != _SIGNATURE_BYTES:
            raise InputError(f"expected {_SIGNATURE_BYTES} bytes of Ed25519, got {len(raw)}", where=where)
        signature = Signature(self.public_key.keyid, raw.hex())
        try:
            self.public_key.verify_signature(signature, payload)
        except UnverifiedSignatureError as error:
            raise InputError(
                "expected a signature of LEANGATE_SIGNING_PUBLIC_KEY, got one of another key", where=where
            ) from error
        return signature


def read_signer(text: str) -> Signer:
    """Return what signs with a private key in PEM, or in the file of that name.

    Raises:
        InputError: if it is no Ed25519 key, or a file that others may read.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    if _PEM.match(text):
        data, where = text.encode(), "LEANGATE_SIGNING_KEY"
    else:
        path = Path(text)
        data, where = _read(path, "a private key"), text
        if b"PUBLIC KEY" in data:
            raise InputError("expected a private key, got a public one", where=where)
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise InputError(
                "expected a private key that its owner alone may read, got one that others may",
                where=where,
                hint=f"chmod 600 {text}",
            )
    try:
        key = load_pem_private_key(data, password=None)
    except Exception as error:  # several classes, without a base of their own; none may show the key
        raise InputError("expected an Ed25519 private key in PEM, got something else", where=where) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"expected an Ed25519 private key, got {type(key).__name__}", where=where)
    return CryptoSigner(key)


def need_signer(environment: Mapping[str, str], command: str) -> Signer:
    """Return what signs here.

    Args:
        environment: As of `find_signer`.
        command: What needs it, for the message.

    Raises:
        InputError: if nobody said what signs, or it is no Ed25519 key.
    """
    signer = find_signer(environment)
    if signer is None:
        raise InputError(
            f"expected {KEY_VARIABLES[0]} or {KEY_VARIABLES[1]} in the environment, got neither",
            where=command,
            hint="leangate keys new FOLDER makes a key",
        )
    return signer


def find_signer(environment: Mapping[str, str]) -> Signer | None:
    """Return what signs here, or None if nobody said.

    `LEANGATE_SIGNING_KEY` is a private key in PEM, or the file that holds one. Or `LEANGATE_SIGNING_COMMAND`
    is a command that signs standard input, of a key service say, and `LEANGATE_SIGNING_PUBLIC_KEY` the file
    of its public key.

    Raises:
        InputError: naming the variable, if what it says is no Ed25519 key.
    """
    key, command, public = (environment.get(name, "") for name in KEY_VARIABLES)
    if key and command:
        raise InputError(f"expected one of {KEY_VARIABLES[0]} and {KEY_VARIABLES[1]}, got both")
    if key:
        return read_signer(key)
    if command:
        if not public:
            raise InputError(f"expected {KEY_VARIABLES[2]} with {KEY_VARIABLES[1]}, got none")
        return _CommandSigner(command, parse_public_key(_read(Path(public), "a public key"), public))
    return None
