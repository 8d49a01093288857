"""The lake: the same work through the synchronous facade and its twin for trio, and what they tell about
it.
"""

from __future__ import annotations

import inspect
import json
import os
import signal
import threading

import numpy as np
import pytest
import trio

import tercet
from tercet.client import client
from tercet.client.lake import open_local
from tercet.errors import PeerLost, PlanError, ProtocolError, SchemaError, TercetError, TransportError

LEFT = {"id": np.arange(100), "age": np.linspace(20, 80, 100), "smokes": np.arange(100) % 2}
RIGHT = {"id": np.arange(50, 150), "cost": np.linspace(-1, 1, 100)}


def check(joined, age, lake):
    assert joined.rows == 50
    assert joined.column_names == ["age", "smokes", "cost"]
    np.testing.assert_allclose(np.sort(age), LEFT["age"][50:], atol=1e-3)
    assert [phase.name for phase in lake.phases] == ["upload", "upload", "join", "reveal"]
    join = lake.phases[2]
    assert join.rounds == 20
    assert len(join.bytes_sent) == 3
    assert join.total_bytes == sum(join.bytes_sent) + join.client_bytes > 0
    assert join.seconds > 0
    told = [item.what for item in lake.disclosed]
    assert told == [
        "pseudonyms of shuffled keys, random words",
        "pseudonyms of shuffled keys, random words",
        "the number of rows that match",
        "column 'age' of 'left+right', row by row",
    ]
    assert str(lake.disclosed).count("\n") == 3


def test_in_a_script():
    progress = []
    with tercet.local() as lake:
        assert lake.protocol == "replicated"
        assert str(lake.disclosed) == "nothing"
        lake.on_phase = lambda phase, plan: progress.append((phase, plan))
        left = lake.upload(LEFT, name="left", key="id", owner="clinic")
        right = lake.upload(RIGHT, name="right", key="id", owner="insurer")
        joined = left.join(right, on="id")
        check(joined, joined.reveal(["age"])["age"], lake)
    assert progress == [
        ("upload", "upload left"),
        ("upload", "upload right"),
        ("join", "join left+right"),
        ("reveal", "reveal left+right"),
    ]


async def test_in_trio():
    async with open_local() as lake:
        left = await lake.upload(LEFT, name="left", key="id", owner="clinic")
        right = await lake.upload(RIGHT, name="right", key="id", owner="insurer")
        joined = await left.join(right, on="id")
        revealed = await joined.reveal(["age"])
        check(joined, revealed["age"], lake)


def plan_of(lake, rows=2):
    builder = lake.builder("noise")
    builder.random_words(rows).reveal("noise", to="me")
    return builder.plan()


def test_a_plan_of_ones_own():
    with tercet.local(protocol="plain") as lake:
        result = lake.run(plan_of(lake))
        assert result.revealed["noise"].shape == (2,)
        assert [str(told) for told in lake.disclosed] == ["noise (2) to me"]
        assert lake.phases[-1].plan == "noise"


async def test_a_plan_of_ones_own_in_trio():
    async with open_local(protocol="plain") as lake:
        assert (await lake.run(plan_of(lake))).revealed["noise"].shape == (2,)


def test_a_closed_lake_says_so():
    with tercet.local(protocol="plain") as lake:
        table = lake.upload(LEFT, name="left", key="id", owner="clinic")
    for call in (lambda: lake.run(plan_of(lake)), lambda: table.reveal(["age"])):
        with pytest.raises(TercetError, match=r"this lake is closed; open it again"):
            call()


def test_threads_end_with_the_lake():
    before = threading.active_count()
    with tercet.local(protocol="plain"):
        pass
    assert not any(thread.name == "tercet-lake" for thread in threading.enumerate())
    assert threading.active_count() <= before + 8  # trio keeps idle workers for a while


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"protocol": "nonsense"}, ProtocolError, "there is no protocol 'nonsense'"),
        ({"parties": 4}, PlanError, "runs with 3 parties, not 4"),
        ({"processes": True, "transport": "memory"}, TransportError, "not usable here"),
        ({"timeout_s": -1}, PlanError, "timeout_s=-1 is not a positive number"),
        ({"tile_rows": 63}, PlanError, "tile_rows=63"),
    ],
)
def test_options_that_cannot_be(options, error, why):
    with pytest.raises(error, match=why), tercet.local(**options):
        pass


def test_errors_pass_through_the_facade():
    with tercet.local(protocol="plain") as lake:
        left = lake.upload(LEFT, name="left", key="id", owner="clinic")
        with pytest.raises(SchemaError, match="uploaded with key id"):
            left.join(left, on="name")
        builder = lake.builder("unknown")
        builder.input("nowhere", left.parts[0].type).reveal("x", to="me")
        with pytest.raises(PlanError, match="nothing is stored under 'nowhere'"):
            lake.run(builder.plan())
        left.reveal(["age"])
    with pytest.raises(ZeroDivisionError), tercet.local(protocol="plain"):
        _ = 1 / 0


# -- traces --------------------------------------------------------------------------------------------------


def check_trace(path, parties):
    events = json.loads(path.read_text())["traceEvents"]
    assert {event["pid"] for event in events} == set(range(parties))
    for party in range(parties):
        mine = [event for event in events if event["pid"] == party]
        steps = [event for event in mine if event["ph"] == "X"]
        assert any(event["name"] == "shuffle left" for event in steps)
        assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in steps)
        begun = [event["id"] for event in mine if event["ph"] == "b"]
        assert len(begun) == len(set(begun)) >= 16 * (parties > 1)
        assert sorted(begun) == sorted(event["id"] for event in mine if event["ph"] == "e")
        frames = [event for event in mine if event["ph"] == "i"]
        assert {event["args"]["to"] for event in frames} == {f"party {p}" for p in range(parties)} - {
            f"party {party}"
        }
        names = [event["args"]["name"] for event in mine if event["name"] == "process_name"]
        assert names == [f"party {party}"]
    return sum(event["args"]["bytes"] for event in events if event["ph"] == "i")


def test_a_trace(tmp_path):
    with tercet.local(threads=2) as lake:
        left = lake.upload(LEFT, name="left", key="id", owner="clinic")
        right = lake.upload(RIGHT, name="right", key="id", owner="insurer")
        with lake.trace(tmp_path / "trace.json"):
            left.join(right, on="id")
        assert check_trace(tmp_path / "trace.json", 3) == sum(lake.phases[-1].bytes_sent)
        left.join(right, on="id")


async def test_a_trace_in_trio(tmp_path):
    async with open_local(protocol="plain") as lake:
        left = await lake.upload(LEFT, name="left", key="id", owner="clinic")
        right = await lake.upload(RIGHT, name="right", key="id", owner="insurer")
        with pytest.raises(SchemaError):
            async with lake.trace(tmp_path / "trace.json"):
                await left.join(right, on="id")
                raise SchemaError("after the join")
        check_trace(tmp_path / "trace.json", 1)


def test_a_node_that_dies_ends_runs_and_traces_with_one_error(tmp_path):
    with tercet.local(processes=True, timeout_s=2) as lake:
        left = lake.upload(LEFT, name="left", key="id", owner="clinic")
        right = lake.upload(RIGHT, name="right", key="id", owner="insurer")
        with pytest.raises(PeerLost) as caught, lake.trace(tmp_path / "trace.json"):
            os.kill(lake.cluster.pids[1], signal.SIGKILL)
            while True:
                left.join(right, on="id")
        assert caught.value.peer == "party 1"
        assert not (tmp_path / "trace.json").exists()


async def test_a_cancelled_run_leaves_the_lake_usable():
    async with open_local(latency_ms=20) as lake:
        left = await lake.upload(LEFT, name="left", key="id", owner="clinic")
        right = await lake.upload(RIGHT, name="right", key="id", owner="insurer")
        with trio.move_on_after(0.1) as scope:
            await left.join(right, on="id")
        assert scope.cancelled_caught
        assert (await left.join(right, on="id")).rows == 50


# -- notebooks -----------------------------------------------------------------------------------------------


def test_every_method_has_a_twin():
    def public(cls):
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(cls, inspect.isfunction)
            if not name.startswith("_")
        }

    mine, twins = public(tercet.Lake), public(tercet.AsyncLake)
    assert {name: twins.get(name) for name in mine if name != "close"} == {
        name: parameters for name, parameters in mine.items() if name != "close"
    }
    assert twins.keys() <= mine.keys()
    for given, twin in ((tercet.connect, tercet.open_lake),):
        assert inspect.signature(given).parameters == inspect.signature(twin).parameters


def test_a_lake_is_closed_by_hand():
    lake = tercet.local(protocol="plain")
    assert lake.run(plan_of(lake)).revealed["noise"].shape == (2,)
    lake.close()
    lake.close()
    with pytest.raises(TercetError, match="this lake is closed"):
        lake.run(plan_of(lake))


def test_interrupting_a_call_ends_its_plan(monkeypatch):
    cancelled = threading.Event()
    lost = client.Client._forget

    def forget(self, handles):
        cancelled.set()
        lost(self, handles)

    monkeypatch.setattr(client.Client, "_forget", forget)
    with tercet.local(latency_ms=40) as lake:
        left = lake.upload(LEFT, name="left", key="id", owner="clinic")
        right = lake.upload(RIGHT, name="right", key="id", owner="insurer")
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(KeyboardInterrupt):
                left.join(right, on="id")
        finally:
            signal.signal(signal.SIGALRM, before)
        assert cancelled.wait(10)
        assert left.join(right, on="id").rows == 50
