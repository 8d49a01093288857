"""The benchmarks, in tiny sizes: they print the keys that they promise, and what they measure is right."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import trio

import tercet
from perf import (
    evaluate,
    figures,
    groupby,
    join,
    kernels,
    machine,
    peers,
    predictions,
    tables,
    train,
    transports,
    workers,
)
from perf.lakes import Conditions
from perf.report import Measured, show

ONCE = Conditions(repeat=1)


@pytest.fixture
def in_process(monkeypatch):
    """Lakes within this process, which start at once; the tests of commands have real ones."""
    opened = tercet.open_local

    @contextlib.asynccontextmanager
    async def open_here(**options):
        async with opened(**{**options, "processes": False, "transport": "memory"}) as lake:
            lake.cluster.pids.append(os.getpid())
            yield lake

    monkeypatch.setattr(tercet, "open_local", open_here)


def command(*arguments):
    """What `python -m perf` prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "perf", *arguments, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_gates_are_right_and_cost_what_they_say(tmp_path):
    trace = tmp_path / "trace.json"
    found = {
        one["name"]: one
        for one in command("gates", "--elements", "2000", "--repeat", "1", "--trace", str(trace))
    }
    assert list(found) == [
        "mul",
        "fixed-point mul",
        "lt",
        "eq",
        "sigmoid",
        "bit-to-arithmetic",
        "shuffle 2000x8",
        "matmul 45x45x45",
        "matmul 2000x10 by 10x1",
    ]
    for one in found.values():
        assert one["seconds"] > 0
        assert one["limit_ratio"] > 0
        assert one["rounds"] >= 1
        assert one["bytes_per_party"] > 0
        assert one["peak_rss_mb"] > 10
        assert one["error_of"]
    for name, limit in {"fixed-point mul": 1.0, "sigmoid": 1e-3}.items():
        assert found.pop(name)["error"] <= limit
    assert all(one["error"] == 0 for one in found.values())
    assert json.loads(trace.read_text())["traceEvents"]


def test_train_by_descent_makes_the_same_steps():
    found = command("train", "--rows", "500", "--repeat", "1")
    assert found["name"] == "train"
    assert found["error"] < 1e-3
    assert found["iterations"] == 10
    assert found["rounds_per_step"] > 0
    assert found["peak_over_shares"] > 1
    assert {
        "seconds",
        "upload_seconds",
        "clear_seconds",
        "bytes_per_party",
        "table_shares_mb",
    } <= found.keys()


@pytest.mark.thorough
def test_a_study_is_measured_call_by_call():
    found = command("study", "--rows", "300", "--features", "2", "--latency-ms", "0")
    stages = {one["name"]: one for one in found}
    assert list(stages)[:4] == ["import", "open", "upload", "upload, second"]
    assert list(stages)[-2:] == ["close", "whole"]
    timed = sum(one["seconds"] for name, one in stages.items() if name != "whole")
    assert timed < stages["whole"]["seconds"]
    assert stages["whole"]["rounds"] == sum(one["rounds"] for one in found[:-1] if "rounds" in one)
    assert stages["fit"]["rounds"] == stages["fit, again"]["rounds"] > 50


def test_a_round_of_a_fit_takes_more_than_an_empty_one():
    found = command("rounds", "--rows", "100", "--features", "2", "--repeat", "1")
    assert found["cpu_us_a_round_of_a_fit"] > found["cpu_us_an_empty_round"] > 0
    assert found["cpu_us_a_round_of_a_fit_alone"] > 0
    assert found["rounds_of_products"] >= 200


@pytest.mark.usefixtures("in_process")
def test_train_by_newton_arrives_at_the_estimate():
    found = trio.run(train.run, 400, 3, train.Fit(solver="newton", iterations=6), ONCE).as_dict()
    assert found["error"] < 0.01
    assert "standard errors" in found["error_of"]


@pytest.mark.usefixtures("in_process")
def test_join_meets_the_right_rows():
    found = trio.run(join.run, 300, 3, ONCE).as_dict()
    assert found["error"] == 0
    assert found["bytes_per_input_row"] == pytest.approx(found["bytes_per_party"] / 600, rel=1e-3)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("sizes", ["exact", "noisy", "hidden"])
def test_groupby_adds_up_the_right_rows(sizes):
    found = trio.run(groupby.run, 200, 30, 1, ONCE, sizes).as_dict()
    assert found["error"] <= 1
    assert (found["groups"], found["sizes"]) == (30, sizes)


@pytest.mark.usefixtures("in_process")
def test_evaluate_agrees_with_scikit_learn():
    found = trio.run(evaluate.run, 300, 3, ONCE).as_dict()
    assert found["error"] < 1e-3


def test_members_run_again_alone_and_send_the_same(monkeypatch):
    monkeypatch.setattr(workers, "in_a_process", workers.replay_all)
    alone, shared = workers.run(300, [2], 1, ["train"], tile_rows=128)
    assert (alone.more["workers"], shared.more["workers"]) == (0, 2)
    assert alone.error == shared.error == 0
    found = shared.as_dict()
    assert found["processor_seconds"] > found["seconds"] > 0
    assert found["processor_seconds"] > found["node_seconds"] > 0
    rows = 300 * 8 * 2 * 11 / 1e6
    assert found["node_to_workers_mb"] > rows > found["workers_to_node_mb"] > 0
    assert found["between_workers_mb"] == 0


def test_predictions_for_tables_that_nobody_has(tmp_path):
    found = predictions.run([10**6, 10**8], [1, 4])
    by_work = {(one["work"], one["rows"], one["workers"]): one["seconds"] for one in found}
    assert {name for name, _, _ in by_work} == {"join", "train", "evaluate"}
    for name in ("join", "train", "evaluate"):
        few, many, shared = (by_work[name, *key] for key in ((10**6, 1), (10**8, 1), (10**8, 4)))
        assert 50 < many / few < 300
        assert 1.5 < many / shared <= 4.1
    page = tmp_path / "page.md"
    page.write_text(f"before\n{predictions.BEGIN}old\n{predictions.END}after\n")
    predictions.write(page, found)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert f"| train | 1,000,000 | {predictions.duration(by_work['train', 10**6, 1])} |" in text
    page.write_text("nothing to see")
    with pytest.raises(ValueError, match="has no lines"):
        predictions.write(page, found)
    assert [predictions.duration(one) for one in (0.123, 99, 121, 90_000)] == [
        "0.12 s",
        "99 s",
        "2 min",
        "25 h",
    ]


@pytest.mark.thorough
def test_members_run_in_processes_of_their_own():
    found = command("workers", "--rows", "70000", "--shards", "2", "--repeat", "1", "--only", "join")
    assert [one["workers"] for one in found] == [0, 2]
    assert all(one["error"] == 0 for one in found)
    assert found[1]["node_peak_rss_mb"] > 10


def test_kernels_agree_with_numpy():
    found = kernels.run(640, 1)
    assert len({one.name for one in found}) == len(found) > 20
    assert all(not one.error for one in found)
    assert sum(one.speedup is not None for one in found) > 10


def test_transports_carry_both():
    found = trio.run(transports.run, transports.Load(2_000_000, 50, 20), 1).as_dict()
    for kind in ("tcp", "tls"):
        assert found[kind]["mb_per_second"] > 0
        assert found[kind]["small_frames_per_second"] > 0
        assert found[kind]["round_trip_us"] > 0


@pytest.mark.usefixtures("in_process")
def test_peers_that_are_missing_are_said_to_be(monkeypatch):
    monkeypatch.setattr(peers, "is_installed", lambda *_: False)
    sizes = peers.Sizes(comparisons=640, side=12, train_rows=(200,), steps=3)
    found = peers.run(sizes, sizes, ONCE).as_dict()
    assert "not installed" in found["spu"]
    assert found["tercet"]["errors"]["lt"] == 0
    assert found["tercet"]["errors"]["matmul"] <= 2**-15
    assert found["tercet"]["errors"]["train 200"] < 1e-3


def test_peers_get_the_same_steps_and_are_scaled():
    full = peers.Sizes(comparisons=1000, side=100, train_rows=(50,))
    small = peers.Sizes(comparisons=100, side=10, train_rows=(50,), steps=2)
    assert [small.scaled(full, work) for work in ("lt", "matmul", "train 50")] == [10, 1000, 5]
    data = peers.request(small, 1)
    X, y = data["X_50"], data["y_50"]
    weights = np.zeros(X.shape[1])
    for _ in range(2):
        weights -= X.T @ (1 / (1 + np.exp(-(X @ weights))) - y) / len(y)
    answer = {
        "train 50": weights,
        "lt": data["less_x"] < data["less_y"],
        "matmul": data["matrix_a"] @ data["matrix_b"],
    }
    assert all(error < 1e-12 for error in peers.errors(data, answer, 2).values())


def test_figures_are_drawn_and_keep_their_numbers(tmp_path, monkeypatch):
    async def measure(rows, conditions):
        return Measured(name="join", seconds=2e-6 * rows, more={"rows": rows, "clear_seconds": 1e-7 * rows})

    both = [figures.Figure(name, measure, name, "pandas") for name in ("link", "train")]
    monkeypatch.setattr(figures, "FIGURES", both)
    figures.run([1000, 100_000, 1_000_000], ONCE, tmp_path, say=lambda _: None)
    again = Conditions(repeat=3, latency_ms=3.0)
    figures.run([1000, 10_000], again, tmp_path, only=["train"], say=lambda _: None)
    numbers = json.loads((tmp_path / "figures.json").read_text())
    assert [numbers[name]["conditions"]["repeat"] for name in ("link", "train")] == [1, 3]
    assert "medians of 3 runs" in (tmp_path / "train.svg").read_text()
    found = numbers["link"]
    assert found["slope"] == pytest.approx(1)
    assert found["growth_100k_to_1m"] == pytest.approx(10)
    assert (tmp_path / "link.png").stat().st_size > 10_000
    first = (tmp_path / "link.svg").read_text()
    figures.redraw(tmp_path)
    assert (tmp_path / "link.svg").read_text() == first


def test_clear_descent_finds_what_newton_does():
    columns = tables.learnable(2000, 3)
    slow = train.clear_fit(columns, "gd", 400)
    exact = train.clear_fit(columns, "newton", None)
    assert np.abs(slow.parameters - exact.parameters).max() < 1e-6


def test_limits_come_from_a_copy_and_memory_from_the_kernel():
    assert 1e8 < machine.copy_rate() < 1e12
    assert machine.peaks_mb([os.getpid()])[0] >= machine.resident_mb([os.getpid()])[0] > 1


def test_reports_are_json_or_a_table(capsys):
    one = Measured(
        name="mul", seconds=0.123456, more={"rows": np.int64(3), "parts": {"a": np.float64(1.23456)}}
    )
    show([one], as_json=True)
    assert json.loads(capsys.readouterr().out) == [
        {"name": "mul", "seconds": 0.1235, "rows": 3, "parts": {"a": 1.235}}
    ]
    show(one, as_json=True)
    assert json.loads(capsys.readouterr().out)["name"] == "mul"
    show(one, as_json=False)
    show([one], as_json=False)
    assert "0.1235" in capsys.readouterr().out
