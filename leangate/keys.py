# SPDX-License-Identifier: Apache-2.0
"""`leangate keys new` and `leangate sign`."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["KEYS_HELP", "SIGN_HELP", "new_keys", "show_key", "sign"]

KEYS_HELP = """Write a new Ed25519 key pair: leangate.key, for its owner alone, and leangate.pub, for whoever
verifies. Never overwrites a key.
"""

SIGN_HELP = """Sign a bundle: three in-toto statements (how it was made, what the gate saw, what was decided)
in DSSE envelopes, in attestations.jsonl. The key is LEANGATE_SIGNING_KEY (a file, or PEM), or a command
that signs (LEANGATE_SIGNING_COMMAND with LEANGATE_SIGNING_PUBLIC_KEY). With one of them set, the stage
`bundle` signs by itself. Run it in the folder of dvc.yaml.
"""


def new_keys(folder: Path) -> tuple[str, int]:
    """Make keys; return what to print, and the exit code."""
    from pipeline.attestation.keys import PRIVATE, PUBLIC, make_keys

    key_id = make_keys(folder)
    text = (
        f"key {key_id}\n"
        f"private  {folder / PRIVATE}  keep it secret: export LEANGATE_SIGNING_KEY={folder / PRIVATE}\n"
        f"public   {folder / PUBLIC}  for others: leangate verify BUNDLE --trust {folder / PUBLIC}\n"
    )
    return text, 0


def show_key(file: Path) -> tuple[str, int]:
    """Return the ids of public keys, one a line, and the exit code.

    Raises:
        InputError: if there is no public key there.
    """
    from pipeline.attestation.keys import read_trusted

    return "".join(f"{key_id}\n" for key_id in sorted(read_trusted(file))), 0


def sign(root: Path, bundle: Path) -> tuple[str, int]:
    """Sign a bundle anew; return what to print, and the exit code.

    Raises:
        InputError: if nothing says what signs, or this is no project's folder.
        EvidenceError: if the bundle does not verify.
    """
    from checks.errors import EvidenceError
    from pipeline.attestation.envelopes import attest
    from pipeline.attestation.keys import need_signer
    from pipeline.attestation.origin import read_origin
    from pipeline.card.contents import ATTESTATIONS, read_bundle
    from pipeline.restricted import restricted_folder
    from pipeline.verification import verify_bundle

    signer = need_signer(os.environ, "leangate sign")
    origin = read_origin(root)
    # The statements say PASSED: nobody signs what does not follow from the evidence.
    steps = verify_bundle(bundle, signatures=False, restricted=restricted_folder())
    unchecked = [step.said for step in steps if step.state == "unchecked"]
    if unchecked:
        raise EvidenceError(
            f"expected a bundle that can be verified whole, got {unchecked[0]}", where=str(bundle)
        )
    manifest, contents = read_bundle(bundle)
    attest(bundle, manifest, contents, origin, signer)
    return f"{bundle / ATTESTATIONS}  signed by {signer.public_key.keyid}\n", 0
