# SPDX-License-Identifier: Apache-2.0
"""Latency: whose times are whose, fresh processes that never outlive their parent, and failures that show."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from checks.errors import ProbeError
from pipeline.params import Time
from pipeline.probes import latency
from pipeline.probes.latency import measure_latency

ROOT = Path(__file__).parents[4]
OPTIONS = Time(batch_sizes=(1, 3), sessions=2, rounds=3, calls=2, warmup=1, threads=1)
ONCE = OPTIONS.model_copy(update={"sessions": 1})
IMAGE = {"shape": (1, 8, 8), "pixel_max": 16}
MEGABYTE = 2**20


@pytest.fixture
def light(linear_onnx):
    return linear_onnx("light.onnx", np.ones((64, 2)), [0, 0])


@pytest.fixture
def heavy(write_onnx):
    """A model that holds 64 MiB of weights, and reads all of them for every image."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "widen"], ["wide"]),
        helper.make_node("MatMul", ["wide", "narrow"], ["scores"]),
    ]
    weights = {"widen": np.ones((64, 4096), np.float32), "narrow": np.ones((4096, 4096), np.float32)}
    return write_onnx("heavy.onnx", nodes, weights)


def test_every_batch_size_session_and_round_has_times_above_zero(light):
    timing = measure_latency(light, light, **IMAGE, options=OPTIONS, seed=0)
    assert timing.batch_sizes == (1, 3)
    for times in (timing.baseline_ms, timing.candidate_ms, timing.control_ms):
        assert times.shape == (2, 2, 3)
        assert np.isfinite(times).all()
        assert (times > 0).all()
    for times, calls in (
        (timing.baseline_ms, timing.baseline_calls_ms),
        (timing.candidate_ms, timing.candidate_calls_ms),
    ):
        assert calls.shape == (2, 2, 3, 2)
        assert (calls > 0).all()
        np.testing.assert_array_equal(np.median(calls, axis=-1), times)
    for seconds in (timing.baseline_processor_s, timing.candidate_processor_s):
        assert seconds.shape == (2, 2, 3)
        assert (seconds >= 0).all()
    for peaks in (timing.baseline_peak_bytes, timing.candidate_peak_bytes):
        assert peaks.shape == (2,)
        assert peaks.dtype == np.int64


def test_times_and_memory_belong_to_their_models(light, heavy):
    ballast = np.ones(400 * MEGABYTE // 8)  # what this process holds must not count as the children's
    start = time.perf_counter()
    timing = measure_latency(light, heavy, **IMAGE, options=ONCE, seed=0)
    passed = time.perf_counter() - start
    del ballast
    assert timing.candidate_ms.sum() < 1000 * passed, "milliseconds that were spent within these seconds"
    assert timing.candidate_ms.mean() > 0.1, "milliseconds: 64 MiB are not read in less"
    # A hundred times the work: no load on this machine turns that round.
    assert np.median(timing.candidate_ms) > 5 * np.median(timing.baseline_ms)
    assert np.median(timing.candidate_ms) > 5 * np.median(timing.control_ms)
    assert timing.candidate_processor_s.sum() > 5 * timing.baseline_processor_s.sum()
    assert timing.candidate_processor_s.sum() < passed, "seconds, of one thread"
    assert (timing.baseline_peak_bytes > 10 * MEGABYTE).all()
    assert (timing.baseline_peak_bytes < 300 * MEGABYTE).all()
    assert (timing.candidate_peak_bytes > timing.baseline_peak_bytes + 50 * MEGABYTE).all()
    swapped = measure_latency(heavy, light, **IMAGE, options=ONCE, seed=0)
    assert (swapped.baseline_peak_bytes > swapped.candidate_peak_bytes + 50 * MEGABYTE).all()
    assert np.median(swapped.control_ms) > 5 * np.median(swapped.candidate_ms)


def _children(parent):
    """Process ids of the children of a process, from the kernel's own table."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_every_session_has_three_fresh_processes_and_none_is_left(monkeypatch, light):
    started, paths = [], []
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    start = latency.subprocess.Popen

    def record(*arguments, **options):
        process = start(*arguments, **options)
        started.append(process)
        paths.append(options["env"]["PYTHONPATH"].split(os.pathsep))
        return process

    monkeypatch.setattr(latency.subprocess, "Popen", record)
    measure_latency(light, light, **IMAGE, options=OPTIONS, seed=0)
    assert len({process.pid for process in started}) == 3 * OPTIONS.sessions
    assert all(process.poll() is not None for process in started)
    assert paths == [[str(ROOT), "elsewhere"]] * len(started)


def test_rounds_run_all_three_in_an_order_the_seed_draws(monkeypatch, light):
    def orders(seed):
        asked = []
        ask = latency._Child.ask

        def record(child, request, key):
            asked.append((child.name, request.get("batch_size")))
            return ask(child, request, key)

        with monkeypatch.context() as patch:
            patch.setattr(latency._Child, "ask", record)
            measure_latency(light, light, **IMAGE, options=ONCE, seed=seed)
        return [entry for entry in asked if entry[1]]

    first = orders(1)
    assert first == orders(1)
    assert first != orders(2)
    rounds = [first[start : start + 3] for start in range(0, len(first), 3)]
    assert len(rounds) == ONCE.sessions * ONCE.rounds * len(OPTIONS.batch_sizes)
    for entries in rounds:
        assert sorted(name for name, _ in entries) == ["baseline", "candidate", "control"]
        assert len({batch_size for _, batch_size in entries}) == 1
    assert len({tuple(name for name, _ in entries) for entries in rounds}) > 1


def test_it_runs_from_any_folder_whatever_lies_there(tmp_path, monkeypatch, light):
    for name in ("json.py", "numpy.py", "checks.py", "pipeline.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')\n")
    monkeypatch.chdir(tmp_path)
    measure_latency(Path("light.onnx"), light, **IMAGE, options=ONCE, seed=0)


def test_a_child_that_dies_is_told_with_its_last_words(tmp_path, light):
    before = _children(os.getpid())
    (tmp_path / "broken.onnx").write_bytes(light.read_bytes()[:-40])
    with pytest.raises(ProbeError, match=r"times the candidate .*its end.*ModelError.*broken\.onnx"):
        measure_latency(light, tmp_path / "broken.onnx", **IMAGE, options=ONCE, seed=0)
    assert set(_children(os.getpid())) <= set(before)


def test_images_of_another_shape_are_told(light):
    with pytest.raises(ProbeError, match="baseline"):
        measure_latency(light, light, shape=(1, 4, 4), pixel_max=16, options=ONCE, seed=0)


def test_a_child_that_takes_too_long_is_ended_and_told(heavy, light):
    before = _children(os.getpid())
    endless = ONCE.model_copy(update={"warmup": 1_000_000})
    with pytest.raises(ProbeError, match=r"nothing in 0\.5 s"):
        measure_latency(heavy, light, **IMAGE, options=endless, seed=0, timeout=0.5)
    assert set(_children(os.getpid())) <= set(before)


def test_a_child_that_answers_nonsense_is_told(monkeypatch, light):
    monkeypatch.setattr(latency, "MODULE", "this")  # prints a poem
    with pytest.raises(ProbeError, match="the line 'The Zen"):
        measure_latency(light, light, **IMAGE, options=ONCE, seed=0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_children_die_with_their_parent_even_in_the_middle_of_work(heavy):
    code = (
        "from pathlib import Path; from pipeline.params import Time\n"
        "from pipeline.probes.latency import measure_latency\n"
        f"heavy = Path({str(heavy)!r})\n"
        "options = Time(batch_sizes=(1,), sessions=1, rounds=1, calls=1, warmup=10_000_000 // 1000, threads=1)\n"
        "measure_latency(heavy, heavy, shape=(1, 8, 8), pixel_max=16, options=options, seed=0)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        children = []
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            children = _children(parent.pid)
            # More than 64 MiB: the model is loaded, and the child is in its warm-up, hearing nothing.
            if len(children) == 3 and all(_resident(child) > 100 * MEGABYTE for child in children):
                break
            time.sleep(0.05)
        assert len(children) == 3
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(_resident(child) for child in children):
        time.sleep(0.05)
    left = [child for child in children if _resident(child)]
    for child in left:
        os.kill(child, signal.SIGKILL)
    assert left == []


def _resident(process):
    """Resident memory of a process in bytes, 0 if it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(sizes[0]) * 1024 if sizes else 0


@pytest.fixture
def powercap(tmp_path):
    zone = tmp_path / "powercap" / "intel-rapl:0"
    zone.mkdir(parents=True)
    (zone / "name").write_text("package-0\n")
    (zone / "max_energy_range_uj").write_text("1000000\n")
    (zone / "energy_uj").write_text("0\n")
    return zone.parent


@pytest.fixture
def ticking(powercap):
    """The counter ticks while the test runs, and starts again at 0 every 1000 ticks."""
    counter, stop = powercap / "intel-rapl:0" / "energy_uj", threading.Event()

    def tick():
        energy = 0
        while not stop.is_set():
            energy = (energy + 1000) % 1_000_000
            (powercap / "next").write_text(f"{energy}\n")
            (powercap / "next").replace(counter)

    thread = threading.Thread(target=tick)
    thread.start()
    yield powercap
    stop.set()
    thread.join()


def test_energy_is_counted_where_there_are_counters(heavy, light, ticking):
    timing = measure_latency(light, heavy, **IMAGE, options=OPTIONS, seed=0, powercap=ticking)
    assert timing.energy_counters == ("intel-rapl:0/package-0",)
    for energy in (timing.baseline_energy_uj, timing.candidate_energy_uj):
        assert energy.shape == (2, 2, 3)
        assert (energy >= 0).all()
    assert timing.candidate_energy_uj.sum() > timing.baseline_energy_uj.sum()
    assert timing.candidate_energy_uj.sum() > 0


def test_a_counter_that_stands_still_is_recorded_as_it_is(light, powercap):
    timing = measure_latency(light, light, **IMAGE, options=ONCE, seed=0, powercap=powercap)
    assert timing.candidate_energy_uj.sum() == 0
    assert timing.energy_counters


def test_without_counters_there_is_no_energy(light, tmp_path):
    timing = measure_latency(light, light, **IMAGE, options=ONCE, seed=0, powercap=tmp_path / "none")
    assert timing.energy_counters == ()
    assert timing.baseline_energy_uj is timing.candidate_energy_uj is None


@pytest.mark.parametrize("when", ["between sessions", "in a session"])
def test_a_counter_lost_on_the_way_leaves_no_energy(monkeypatch, light, powercap, when):
    """Energy of some rounds alone would pass for that of all."""
    name = latency._session_pair if when == "between sessions" else latency._measure_pair

    def lose(*arguments):
        (powercap / "intel-rapl:0" / "energy_uj").unlink(missing_ok=True)
        return name(*arguments)

    pairs = iter([False, True])

    def later(*arguments):
        return lose(*arguments) if next(pairs) else name(*arguments)

    monkeypatch.setattr(latency, name.__name__, later)
    timing = measure_latency(light, light, **IMAGE, options=OPTIONS, seed=0, powercap=powercap)
    assert timing.energy_counters == ()
    assert timing.baseline_energy_uj is None


def test_a_session_on_another_provider_is_refused(monkeypatch, light):
    """Times on different hardware are no comparison."""
    monkeypatch.setattr(latency, "PROVIDERS", ("CUDAExecutionProvider", "CPUExecutionProvider"))
    with pytest.raises(ProbeError, match="expected providers .*CUDA.* for the baseline, got .*CPU"):
        measure_latency(light, light, **IMAGE, options=ONCE, seed=0)


def test_energy_of_other_counters_is_never_mixed(monkeypatch, light, powercap):
    """One process that can read less, or a session that can read more: their energy is of other things."""
    receive = latency._Child.receive

    def less(child, key):
        answer = receive(child, key)
        return answer | {"counters": ["other"]} if key == "ready" and child.name == "candidate" else answer

    with monkeypatch.context() as patch:
        patch.setattr(latency._Child, "receive", less)
        timing = measure_latency(light, light, **IMAGE, options=ONCE, seed=0, powercap=powercap)
    assert timing.energy_counters == ()

    measure = latency._measure_pair

    def more(*arguments):
        records = measure(*arguments)
        shutil.copytree(powercap / "intel-rapl:0", powercap / "intel-rapl:1", dirs_exist_ok=True)
        return records

    monkeypatch.setattr(latency, "_measure_pair", more)
    timing = measure_latency(light, light, **IMAGE, options=OPTIONS, seed=0, powercap=powercap)
    assert timing.energy_counters == ()
    assert timing.baseline_energy_uj is None
