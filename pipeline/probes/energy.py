# SPDX-License-Identifier: Apache-2.0
"""Energy counters of the processor (RAPL), where the kernel shows them and this process may read them.

Linux keeps them under `/sys/class/powercap`, a folder a zone, microjoules since some moment in `energy_uj`,
which starts again at 0 above `max_energy_range_uj`
(https://docs.kernel.org/power/powercap/powercap.html). Most hosts let root alone read them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["POWERCAP", "Counters", "open_counters"]

POWERCAP = Path("/sys/class/powercap")

_ZONE = re.compile(r"intel-rapl:\d+(:\d+)?")

_COUNTED = re.compile(r"(package-\d+(-die-\d+)?|dram)")
"""Cores and graphics are part of their package, and `psys` of everything: they would count twice."""


def _read(path: Path) -> int | None:
    try:
        value = int(path.read_text())
    except (OSError, ValueError):
        return None
    return value if value >= 0 else None


class Counters:
    """Energy counters of zones that do not overlap.

    Args:
        zones: Name, `intel-rapl:0/package-0` for example, to the zone's folder.
        ranges: Name to the value above which the counter starts again at 0, in microjoules.
    """

    def __init__(self, zones: Mapping[str, Path], ranges: Mapping[str, int]) -> None:
        self._zones, self._ranges = dict(zones), dict(ranges)

    @property
    def names(self) -> list[str]:
        """What is counted; nothing where no counter can be read."""
        return sorted(self._zones)

    def read(self) -> dict[str, int | None]:
        """Return the counters as they stand, in microjoules; None where one can no longer be read."""
        return {name: _read(zone / "energy_uj") for name, zone in self._zones.items()}

    def spent(self, before: Mapping[str, int | None]) -> int | None:
        """Return the microjoules spent since `before`, or None if any counter could not be read.

        A counter that is below where it was has started again at 0, once: that takes it minutes.
        """
        total = 0
        for name, end in self.read().items():
            start = before.get(name)
            if start is None or end is None:
                return None
            total += end - start if end >= start else end + self._ranges[name] - start
        return total if self._zones else None


def open_counters(folder: Path = POWERCAP) -> Counters:
    """Find the counters of packages and memory below `folder`.

    All of them must be readable: energy of some zones alone would pass for that of all.
    """
    zones: dict[str, Path] = {}
    ranges: dict[str, int] = {}
    for zone in sorted(folder.glob("intel-rapl:*")):
        if not _ZONE.fullmatch(zone.name):
            continue
        try:
            name = (zone / "name").read_text().strip()
        except (OSError, ValueError):
            return Counters({}, {})
        if not _COUNTED.fullmatch(name):
            continue
        limit, now = _read(zone / "max_energy_range_uj"), _read(zone / "energy_uj")
        if not limit or now is None:
            return Counters({}, {})
        # Each package has memory of its own, all by the name `dram`.
        zones[f"{zone.name}/{name}"], ranges[f"{zone.name}/{name}"] = zone, limit
    return Counters(zones, ranges)
