"""Clusters start, or say why not; they leave nothing behind."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import trio

from tercet.actors import gate, lowering, session
from tercet.actors.line import Line
from tercet.actors.rounds import Lockstep
from tercet.actors.scheduler import Scheduler
from tercet.actors.session import Session
from tercet.client import node_processes
from tercet.client.cluster import ClusterOptions, open_cluster
from tercet.errors import PeerLost, PlanError, ProtocolError, TransportError
from tercet.plans import Builder, Form, Type, parsing
from tercet.protocols import registry
from tercet.protocols.replicated import Replicated

KIND = Type(Form.RING, (100,), 8, 2.0**30)


async def use(cluster, tile_rows=64):
    words = np.arange(100, dtype=np.uint64)
    await cluster.client.put("x", KIND, words)
    b = Builder("doubled", tile_rows=tile_rows)
    (b.input("x", KIND) * 2).reveal("twice", to="me")
    found = await cluster.client.run(b.plan())
    np.testing.assert_array_equal(found.revealed["twice"], 2 * np.arange(100) / 256)


@pytest.mark.parametrize("transport", ["memory", "tcp", "tls"])
@pytest.mark.parametrize("protocol", ["plain", "replicated"])
async def test_nodes_as_tasks(protocol, transport):
    async with open_cluster(ClusterOptions(protocol=protocol, transport=transport, tile_rows=64)) as cluster:
        assert cluster.pids == []
        await use(cluster)


async def test_what_nobody_waits_for_has_a_number_of_its_own(monkeypatch):
    """Nodes end a link on which a number comes again while its request is under way."""
    async with open_cluster(ClusterOptions()) as cluster:
        sent = []
        monkeypatch.setattr(Line, "post", lambda _, message: sent.append(message))
        for _ in range(2):
            cluster.client.post("drop", [["nothing"]])
        monkeypatch.undo()
    assert len(sent) == 6
    assert len({number for _, number, _ in sent}) == 2


async def test_a_run_leaves_nothing_for_the_garbage_collector():
    """What a run held is let go when it ends, not when cycles of references are looked for."""
    async with open_cluster(ClusterOptions(tile_rows=64)) as cluster:
        await use(cluster)
        gc.collect()
        gc.disable()
        try:
            await use(cluster)
            left = [one for one in gc.get_objects() if type(one) in (Lockstep, Scheduler, Session)]
        finally:
            gc.enable()
    assert left == []


@pytest.mark.parametrize("big", [gate.BIG_PLAN, 0])
async def test_nodes_of_one_process_read_a_plan_once(monkeypatch, big):
    """In the event loop or in threads; of a plan that differs in handles, only these."""
    read = []
    monkeypatch.setattr(gate, "BIG_PLAN", big)
    body = parsing._read_body
    monkeypatch.setattr(parsing, "_shapes", parsing._Shapes())
    monkeypatch.setattr(parsing, "_read_body", lambda packed: read.append(packed) or body(packed))
    async with open_cluster(ClusterOptions(tile_rows=64)) as cluster:
        await use(cluster)
        assert len(read) == 1
        await use(cluster)
    assert len(read) == 1


@pytest.mark.parametrize(("longest", "in_loop"), [(0, []), (session.LONG_PLAN, [True])])
async def test_long_plans_are_worked_out_in_a_thread_once(monkeypatch, longest, in_loop):
    """By the nodes of a process together, so that heartbeats go on meanwhile."""
    found, work = [], lowering.Lowering

    def noted(*args, **options):
        found.append(trio.lowlevel.in_trio_run())
        return work(*args, **options)

    monkeypatch.setattr(session, "LONG_PLAN", longest)
    monkeypatch.setattr(lowering, "Lowering", noted)
    monkeypatch.setattr(parsing, "_shapes", parsing._Shapes())
    async with open_cluster(ClusterOptions(tile_rows=128)) as cluster:
        await use(cluster, 128)
    assert found == (in_loop or [False])


async def test_slow_links():
    options = ClusterOptions(latency_ms=2, bandwidth_mbit=100, jitter_ms=1, tile_rows=64, timeout_s=3)
    async with open_cluster(options) as cluster:
        await use(cluster)


@pytest.mark.parametrize(
    ("transport", "protocol", "forks"),
    [("tcp", "plain", False), ("tls", "replicated", node_processes.FORKS)],
)
async def test_nodes_as_processes(transport, protocol, forks, monkeypatch):
    monkeypatch.setattr(node_processes, "FORKS", forks)
    options = ClusterOptions(protocol=protocol, processes=True, transport=transport, tile_rows=64)
    async with open_cluster(options) as cluster:
        pids = cluster.pids
        assert len(set(pids)) == cluster.parties
        await use(cluster)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("options", "error", "why"),
    [
        ({"protocol": "replicatd"}, ProtocolError, "did you mean 'replicated'"),
        ({"parties": 2}, PlanError, "runs with 3 parties, not 2"),
        (
            {"transport": "pigeon"},
            TransportError,
            "no transport 'pigeon'; Known transports: memory, tcp, tls",
        ),
        ({"transport": "memory", "processes": True}, TransportError, "choose one of tcp, tls"),
        ({"timeout_s": 0}, PlanError, "timeout_s=0 is too small"),
        ({"threads": 0}, PlanError, "threads=0 is too small"),
        ({"latency_ms": -1}, PlanError, "latency_ms=-1 is too small"),
        ({"latency_ms": float("nan")}, PlanError, "latency_ms=nan is too small"),
        ({"latency_ms": 1, "jitter_ms": 2}, PlanError, "cannot arrive before it is sent"),
        ({"bandwidth_mbit": 0}, PlanError, "bandwidth_mbit=0 is too small"),
        ({"tile_rows": 100}, PlanError, "multiple of 64"),
    ],
)
async def test_options_that_cannot_be(options, error, why):
    with pytest.raises(error, match=why):
        async with open_cluster(ClusterOptions(**options)):
            pass


async def test_a_protocol_that_the_nodes_do_not_have(monkeypatch):
    monkeypatch.setitem(registry.BUILT_IN, "ours", "tercet.protocols.plain:Plain")
    with trio.fail_after(60), pytest.raises(ProtocolError, match="there is no protocol 'ours'"):
        async with open_cluster(ClusterOptions(protocol="ours", processes=True)):
            pass


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(3)",
        "print('no json', flush=True); input()",
        "import sys; sys.stdin.readline(); sys.exit(1)",
        """input(); print('{"address": "127.0.0.1:1"}', flush=True); input(); raise SystemExit""",
    ],
)
async def test_a_node_that_fails_at_start(program, monkeypatch):
    monkeypatch.setattr(node_processes, "FORKS", False)
    monkeypatch.setattr(node_processes, "NODE", program)
    with trio.fail_after(60), pytest.raises((PeerLost, TransportError), match=r"party \d"):
        async with open_cluster(ClusterOptions(processes=True)):
            pass


@pytest.mark.skipif(not node_processes.FORKS, reason="nodes are not forked on this system")
@pytest.mark.parametrize(
    "program", ["raise SystemExit(3)", "print('[]')", "print('no json')", "print('[-7]')"]
)
async def test_a_process_that_forks_no_nodes(program, monkeypatch):
    monkeypatch.setattr(node_processes, "FORKED", program)
    with trio.fail_after(60), pytest.raises(TransportError, match="the nodes ended while they started"):
        async with open_cluster(ClusterOptions(processes=True)):
            pass


@pytest.mark.skipif(not node_processes.FORKS, reason="nodes are not forked on this system")
async def test_nodes_that_were_stopped_or_killed_leave_nothing_behind():
    before = _descriptors()
    async with open_cluster(ClusterOptions(processes=True)) as cluster:
        pids = cluster.pids
        parents = {_parent(pid) for pid in pids}
        os.kill(pids[1], signal.SIGKILL)
        os.kill(pids[2], signal.SIGSTOP)
    assert len(parents) == 1
    for pid in {*pids, *parents}:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert _descriptors() == before


@pytest.mark.skipif(not node_processes.FORKS, reason="nodes are not forked on this system")
async def test_a_stopped_process_that_has_forked_nodes_holds_nobody_up():
    with trio.fail_after(60):
        async with open_cluster(ClusterOptions(processes=True)) as cluster:
            parent = _parent(cluster.pids[0])
            os.kill(parent, signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(parent, 0)


def _descriptors():
    return set(Path("/proc/self/fd").iterdir())


def _parent(pid):
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[1])


async def test_one_node_that_dies_while_the_others_wait(monkeypatch):
    # Party 2 greets nobody: the others must not wait for it until the start takes too long.
    program = (
        "import json, sys\n"
        "from tercet.actors import node\n"
        "first = sys.stdin.buffer.readline()\n"
        "if json.loads(first)['index'] == 2:\n"
        "    print(json.dumps({'address': '127.0.0.1:1'}), flush=True)\n"
        "    sys.exit()\n"
        "lines = iter([first])\n"
        "sys.exit(node.trio.run(node._main, lambda: next(lines, None) or sys.stdin.buffer.readline()))\n"
    )
    monkeypatch.setattr(node_processes, "FORKS", False)
    monkeypatch.setattr(node_processes, "NODE", program)
    with trio.fail_after(60), pytest.raises(PeerLost) as caught:
        async with open_cluster(ClusterOptions(processes=True, transport="tcp")):
            pass
    assert caught.value.peer == "party 2"


async def test_errors_of_the_body_pass_as_they_are():
    with pytest.raises(ZeroDivisionError):
        async with open_cluster(ClusterOptions(protocol="plain")):
            _ = 1 / 0


class Strange(Replicated):
    def __init__(self, **options):
        raise ZeroDivisionError("in the constructor")


async def test_a_protocol_that_fails_in_its_constructor(monkeypatch, caplog):
    monkeypatch.setitem(registry.BUILT_IN, "strange", "tercet.protocols.replicated:Replicated")
    monkeypatch.setattr(registry, "get", lambda _: Strange)
    async with open_cluster(ClusterOptions(protocol="strange", tile_rows=64)) as cluster:
        with pytest.raises(ProtocolError, match="in the constructor"):
            await cluster.client.put("x", KIND, np.zeros(100, dtype=np.uint64))
        b = Builder("random", tile_rows=64)
        b.random_words(2).reveal("words", to="me")
        with pytest.raises(ProtocolError, match="in the constructor"):
            await cluster.client.run(b.plan())
    assert "ZeroDivisionError" in caplog.text
