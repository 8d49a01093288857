"""Cheap ways to stop the lake for everyone: what one member sends is bounded before it is worked on."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest
import trio

from tercet.errors import ConsentError, PlanError, ProtocolError, TercetError
from tercet.members.rules import Rules
from tercet.nodes import entries, refusals
from tercet.nodes.reviewed import LONGEST_SHOWN
from tercet.plans import Builder, Form, Type
from tercet.plans.parsing import LONGEST_TEXT, MOST_ARGS, MOST_PLAN_BYTES, read_plan
from tercet.plans.plan import MOST_NODES
from tests.attacks.lake import allow, values_of
from tests.packed_plans import packed_plan

pytestmark = pytest.mark.early
X = ["input", [], {"handle": "x", "form": "ring", "shape": [1, 100], "scale": 0, "limit": 1.0}, ""]


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def series(harmonics, many=1):
    numbers = [0.0] * harmonics
    one = ["logistic", 4, [1] * harmonics, numbers, numbers, 0.0, -1.0, 1.0, 1.0]
    bits = {"dealt_bits": 10, "coefficient_bits": 10}
    x = ["input", [], X[2] | {"shape": [100], "scale": 8}, ""]
    return packed_plan([x, ["fourier", [[0, 0]], {"series": [one] * many, **bits}, ""]])


BUILT = {
    "harmonics": lambda: series(20_000),
    "series": lambda: series(1, 100),
    "bytes": lambda: bytes(MOST_PLAN_BYTES + 1),
    "nodes": lambda: packed_plan([["not", [], {}, ""]] * (MOST_NODES + 1)),
    "arguments": lambda: packed_plan([X, ["concatenate", [[0, 0]] * (MOST_ARGS + 1), {}, ""]]),
    "label": lambda: packed_plan([[*X[:3], "x" * (LONGEST_TEXT + 1)]]),
    "name": lambda: packed_plan([X], "x" * (LONGEST_TEXT + 1)),
    "handle": lambda: packed_plan([["input", [], X[2] | {"handle": "x" * 1000}, ""]]),
    "depth": lambda: packed_plan([["input", [], X[2] | {"shape": nested(500)}, ""]]),
    "deeper": lambda: packed_plan([X])[:-1] + bytes([0x91]) * 5000 + bytes([0x90]),
    "map": lambda: packed_plan([["input", [], X[2] | {"shape": {"a": {"b": 1}}}, ""]]),
    "axes": lambda: packed_plan([X, ["reshape", [[0, 0]], {"shape": [1] * 1000 + [100]}, ""]]),
    "random": lambda: packed_plan([["random", [], {"shape": [1 << 39], "fresh": 1}, ""]]),
    "columns": lambda: packed_plan([X, ["select", [[0, 0]], {"indices": [0] * 2_000_000}, ""]]),
    "stores": lambda: packed_plan(
        [X, *(["store", [[0, 0]], {"handle": f"y{i}"}, ""] for i in range(20_000))]
    ),
    "points": lambda: packed_plan(
        [X, *(["checkpoint", [[0, 0]], {"point": i, "name": f"y{i}"}, ""] for i in range(20_000))]
    ),
}


@pytest.mark.parametrize("what", BUILT)
def test_a_plan_that_nobody_needs_is_refused(what):
    with pytest.raises(PlanError):
        read_plan(BUILT[what]())


def test_a_series_of_usual_length_is_read():
    assert read_plan(series(64, 2)).nodes[1].kind == "fourier"


def test_nodes_are_counted_before_they_are_unpacked_plan(monkeypatch):
    """Unpacking a million takes seconds, in which a node does nothing else."""

    def unpack(*_, **__):
        raise AssertionError("unpacked")

    monkeypatch.setattr(msgpack, "unpackb", unpack)
    with pytest.raises(PlanError, match=f"a plan of {MOST_NODES + 1} nodes is too large"):
        read_plan(BUILT["nodes"]())


async def test_a_million_nodes_stop_nobody(attacked):
    """The nodes refuse them at once, and have run another member's plan meanwhile."""
    await attacked.victim()
    million = packed_plan([X, *([["not", [[0, 0]], {}, ""]] * 1_000_000)])
    assert len(million) < MOST_PLAN_BYTES
    b = Builder("a total", tile_rows=attacked.hospital.cluster.client.tile_rows)
    values_of(b, await attacked.hospital.table("ages")).sum().reveal("total", to="analyst")
    done = []

    async def other():
        done.append(await attacked.run(b.plan(), attacked.hospital))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refused_plan, attacked, bytes(16), million)
        nursery.start_soon(other)
    assert done[0].revealed["total"] > 0


async def refused_plan(attacked, session, plan):
    with pytest.raises(PlanError, match="too large"):
        await attacked.ann.cluster.client.ask("submit", [session, plan, 0.0, False])


@pytest.mark.parametrize("step", ["double", "bounded", "shifted"])
async def test_long_chains_of_local_steps_run(attacked, step):
    """Neither does their depth end a run, nor double the work with each step."""
    handle, kind = await attacked.deal([[1, 1]])
    b = attacked.builder("deep")
    value = b.input(handle, kind)
    for number in range(300):
        if step == "double":
            value = (value + value).bounded(8.0, "x")
        elif step == "bounded":
            value = value.bounded(8.0, str(number))
        else:
            value = value.shifted(1 - 2 * (number % 2))
    value.sum().reveal("sum", to="analyst")
    with trio.fail_after(60):
        found = await attacked.run(b.plan())
    assert found.revealed["sum"] == (0 if step == "double" else 2)


async def test_what_is_kept_is_bounded(attacked):
    desk = attacked.ann.desk
    for body, handles in ((bytes(entries.MOST_BODY + 1), []), (b"", [f"x{i}" for i in range(5000)])):
        with pytest.raises(ConsentError, match="nodes take"):
            await desk.keep("model", "m", body, handles, Rules())
    with pytest.raises((ConsentError, ProtocolError)):
        await desk.keep("model", "m" * 300, b"", [], Rules())
    allow(attacked, entries=2)
    for name in ("one", "two"):
        await desk.keep("table", name, b"", [], Rules())
    with pytest.raises(ConsentError, match="ann has 2 tables, models and numbers at this node"):
        await desk.keep("table", "three", b"", [], Rules())


async def test_refusals_do_not_fill_the_audit_log(attacked, monkeypatch):
    monkeypatch.setattr(refusals, "MOST_REFUSALS", 5)
    logs = [node.gate.audit for node in attacked.nodes]
    before = [log.head.lines for log in logs]
    for number in range(20):
        with pytest.raises(TercetError):
            await attacked.ann.cluster.client.ask("refuse", [bytes(16), "x" * (100 + number)])
    for log, start in zip(logs, before, strict=True):
        assert log.head.lines - start == 5
        assert "more of ann in this hour are only in the node's log" in log.lines(start + 4, 1)[0]
    # Another member's are written down still.
    with pytest.raises(TercetError):
        await attacked.hospital.cluster.client.ask("refuse", [bytes(16), "x"])
    assert all(log.head.lines - start == 6 for log, start in zip(logs, before, strict=True))


async def test_a_line_of_the_audit_log_is_short_whatever_is_asked(attacked):
    """Names and reasons that members make up are cut."""
    log = attacked.nodes[0].gate.audit
    start = log.head.lines
    kind = Type(Form.RING, (1,), 0, 1.0)
    with pytest.raises(TercetError):
        await attacked.ann.cluster.client.put("x" * 100_000, kind, np.ones(1, dtype=np.uint64))
    b = attacked.builder("n" * LONGEST_SHOWN)
    for number in range(300):
        b.random_words(2, 1 + number).reveal("r" * 200 + str(number), to="analyst")
    await attacked.run(b.plan())
    assert all(len(line) < 20_000 for line in log.lines(start, 10))


async def test_requests_under_way_are_bounded(attacked):
    """Whoever asks for more at a time than anybody does is hung up on; others are not."""
    table = await attacked.victim(plans="approved")
    b = attacked.builder()
    values_of(b, table).sum().reveal("total", to="analyst")
    session = await attacked.ann.cluster.client.submit(b.plan())
    line = attacked.ann.cluster.client._nodes[0].line
    for number in range(5000):
        line.post(["fetch", 10_000 + number, session])  # each waits for the job, which waits for its owner
    with trio.fail_after(60):
        while line.lost is None:  # noqa: ASYNC110
            await trio.sleep(0.05)
    b = attacked.builder()
    values_of(b, await attacked.hospital.table("ages")).sum().reveal("total", to="analyst")
    assert (await attacked.run(b.plan(), attacked.hospital)).revealed["total"] > 0
