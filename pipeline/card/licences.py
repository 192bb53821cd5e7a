# SPDX-License-Identifier: Apache-2.0
"""Licences by their SPDX ids, as far as other formats name them the same way."""

from __future__ import annotations

__all__ = ["spdx_id"]

_IDS = (
    *("Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unlicense", "MPL-2.0", "EPL-2.0"),
    *("LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later"),
    *("GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later"),
    *("AGPL-3.0-only", "AGPL-3.0-or-later", "CC0-1.0", "PDDL-1.0", "ODbL-1.0", "ODC-By-1.0"),
    *("CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-NC-ND-4.0"),
)
_BY_LOWER = {name.lower(): name for name in _IDS}


def spdx_id(name: str) -> str | None:
    """Return the SPDX id that a licence is known under, in its own spelling, or None."""
    return _BY_LOWER.get(name.strip().lower())
