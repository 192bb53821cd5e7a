# SPDX-License-Identifier: Apache-2.0
"""Energy counters: which zones count, what a reset is, and that a counter nobody may read is none."""

from __future__ import annotations

import pytest

from pipeline.probes.energy import open_counters

ZONES = {
    "intel-rapl:0": ("package-0", 1000),
    "intel-rapl:0:0": ("core", 400),
    "intel-rapl:0:1": ("dram", 50),
    "intel-rapl:1": ("package-1", 2000),
    "intel-rapl:1:0": ("dram", 70),
    "intel-rapl:2": ("psys", 9000),
    "intel-rapl-mmio:0": ("package-0", 1000),
}
COUNTED = ["intel-rapl:0/package-0", "intel-rapl:0:1/dram", "intel-rapl:1/package-1", "intel-rapl:1:0/dram"]


@pytest.fixture
def powercap(tmp_path):
    """A folder as the kernel shows it, with two packages."""
    for zone, (name, energy) in ZONES.items():
        (tmp_path / zone).mkdir()
        (tmp_path / zone / "name").write_text(f"{name}\n")
        (tmp_path / zone / "energy_uj").write_text(f"{energy}\n")
        (tmp_path / zone / "max_energy_range_uj").write_text("10000\n")
    (tmp_path / "dtpm").mkdir()
    return tmp_path


def _set(powercap, zone, energy):
    (powercap / zone / "energy_uj").write_text(f"{energy}\n")


def test_packages_and_memory_count_and_nothing_that_is_part_of_them(powercap):
    counters = open_counters(powercap)
    assert counters.names == COUNTED
    before = counters.read()
    assert counters.spent(before) == 0
    _set(powercap, "intel-rapl:0", 1300)
    _set(powercap, "intel-rapl:1:0", 75)
    for ignored in ("intel-rapl:0:0", "intel-rapl:2", "intel-rapl-mmio:0"):
        _set(powercap, ignored, 9999)
    assert counters.spent(before) == 305


def test_a_counter_that_starts_again_at_zero_goes_on(powercap):
    counters = open_counters(powercap)
    _set(powercap, "intel-rapl:1", 9900)
    before = counters.read()
    _set(powercap, "intel-rapl:1", 150)
    _set(powercap, "intel-rapl:0", 1001)
    assert counters.spent(before) == 251


def test_a_host_without_counters_has_none(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        counters = open_counters(folder)
        assert counters.names == []
        assert counters.spent(counters.read()) is None


@pytest.mark.parametrize("file", ["name", "energy_uj", "max_energy_range_uj"])
def test_one_zone_with_a_file_missing_or_forbidden_leaves_none(powercap, file):
    path = powercap / "intel-rapl:1" / file
    path.unlink()
    path.mkdir()  # cannot be read as a file, whoever asks
    assert open_counters(powercap).names == []
    path.rmdir()
    assert open_counters(powercap).names == []


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
@pytest.mark.parametrize("text", ["", "secret", "-1"])
def test_one_zone_that_counts_nonsense_leaves_none(powercap, file, text):
    (powercap / "intel-rapl:1" / file).write_text(text)
    assert open_counters(powercap).names == []


def test_a_counter_lost_on_the_way_is_no_energy(powercap):
    counters = open_counters(powercap)
    before = counters.read()
    (powercap / "intel-rapl:0" / "energy_uj").unlink()
    assert counters.spent(before) is None
