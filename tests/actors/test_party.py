"""Parties and clients: nothing hangs, nothing is left behind, and errors say who and where."""

from __future__ import annotations

import gc
import re
import time
import weakref

import numpy as np
import pytest
import trio
import trio.testing

from tercet.actors.hello import VERSION, Hello, greet
from tercet.actors.line import CHUNK_BYTES
from tercet.actors.party import MOST_EARLY_STARTS
from tercet.actors.session import Session
from tercet.actors.values import type_fields
from tercet.client.answers import verdict
from tercet.client.connection import Request
from tercet.errors import (
    PeerLost,
    PlanError,
    ProtocolError,
    StorageError,
    TercetError,
    TransportError,
    from_wire,
)
from tercet.plans import Builder, Form, Type
from tercet.protocols.base import Round
from tercet.protocols.domains import Z64
from tercet.protocols.plain import Plain
from tercet.protocols.replicated import Replicated
from tercet.transports import Fault, FaultyLink
from tercet.transports.names import CLIENT
from tercet.transports.wire import pack_message

KIND = Type(Form.RING, (10,), 8, 2.0**30)
WORDS = np.arange(10, dtype=np.uint64) << np.uint64(8)


def squares(name="squares", handle="x", kind=KIND):
    b = Builder(name, tile_rows=64)
    x = b.input(handle, kind)
    (x * x).rescale(8).reveal("squares", to="analyst")
    return b.plan()


def endless():
    """A plan that its parties never finish: each waits for a word that nobody sends."""
    b = Builder("endless", tile_rows=64)
    b.input("x", KIND).rescale(4).store("y")
    return b.plan()


class Fails(Replicated):
    def truncate(self, x, bits):
        raise StorageError("the disk is full")


async def test_nothing_is_held_of_a_run_that_failed(open_cluster_of_nodes, monkeypatch):
    """Nodes remember for long why it did, but not what it had made until then."""
    begin, runners = Session.begin, []

    def begins(session, runner):
        runners.append(weakref.ref(runner))
        begin(session, runner)

    monkeypatch.setattr(Session, "begin", begins)
    async with open_cluster_of_nodes(Fails) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        with pytest.raises(StorageError, match="the disk is full"):
            await client.run(squares())
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert len(runners) == 3
        assert not any(runner() for runner in runners)


class Waits(Replicated):
    def truncate(self, x, bits):
        yield Round(recv={self.next: [(1,)]})
        return (yield from super().truncate(x, bits))


@pytest.mark.parametrize("protocol", [Plain, Replicated])
async def test_a_plan_from_upload_to_result(protocol, open_cluster_of_nodes, example, verified):
    async with open_cluster_of_nodes(protocol) as nodes:
        client = await nodes.client()
        one = example(150)
        for handle, (kind, words) in one.inputs.items():
            await client.put(handle, kind, words)
        result = await client.run(one.plan)
        verified(one, result.revealed)
        assert result.symbols == one.symbols
        assert result.stored["joined"].shape == (1, 100)
        assert result.disclosed == tuple(one.plan.disclosures())
        again = Builder("again", tile_rows=64)
        again.input("joined", result.stored["joined"]).sum().reveal("sum", to="analyst")
        assert (await client.run(again.plan())).revealed["sum"] == pytest.approx(
            result.revealed["payload sum"]
        )
        await client.drop(["joined"])
        with pytest.raises(PlanError, match=r"node 0 \(input\): nothing is stored under 'joined'"):
            await client.run(again.plan())


async def test_payloads_longer_than_a_frame(open_cluster_of_nodes):
    rows = 3 * CHUNK_BYTES // 8 + 5
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client(tile_rows=1 << 20)
        kind = Type(Form.RING, (rows,), 0, 2.0**60)
        words = np.random.default_rng(1).integers(0, 2**60, rows).astype(np.uint64)
        await client.put("x", kind, words)
        b = Builder("long", tile_rows=1 << 20)
        b.apply_all("shuffle", b.input("x", kind))[0].reveal("x", to="analyst")
        found = (await client.run(b.plan())).revealed["x"]
        np.testing.assert_array_equal(np.sort(found), np.sort(words.astype(float)))


async def test_two_clients_at_one_time(open_cluster_of_nodes):
    async with open_cluster_of_nodes() as nodes:
        clients = [await nodes.client() for _ in range(2)]
        await clients[0].put("x", KIND, WORDS)
        found = []

        async def run(client):
            found.append((await client.run(squares())).revealed["squares"])

        async with trio.open_nursery() as nursery:
            for client in clients * 4:
                nursery.start_soon(run, client)
        assert len(found) == 8
        for one in found:
            np.testing.assert_allclose(one, np.arange(10.0) ** 2, atol=2.0**-8)


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Type(Form.PUBLIC, (10,)), "cannot be stored"),
        (Type(Form.RING, (-1,)), "cannot be stored"),
        (Type(Form.RING, (11,), 8, 2.0**30), "bytes"),
        (Type(Form.RING, (1 << 50,)), "cannot be stored"),
    ],
)
async def test_an_upload_that_cannot_be_stored_is_answered(kind, why, open_cluster_of_nodes):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        dealt = client.protocol.deal(WORDS, domain=Z64, parties=3)
        args = ["x", type_fields(kind), client.tile_rows, 0, kind.rows]
        with pytest.raises(PlanError, match=why):
            await client._ask_all([Request("put", args, parts) for parts in dealt])
        await client.put("x", KIND, WORDS)
        await client.run(squares())


async def test_uploads_that_failed_at_one_node_are_dropped_at_all(open_cluster_of_nodes, monkeypatch):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()

        def refuse(*_, **__):
            raise PlanError("full")

        monkeypatch.setattr(nodes.parties[1], "accept", refuse)
        with pytest.raises(PlanError, match="full"):
            await client.put("x", KIND, WORDS)
        await trio.testing.wait_all_tasks_blocked()
        assert [party.store for party in nodes.parties] == [{}, {}, {}]


async def test_an_unforeseen_error_is_answered(open_cluster_of_nodes, monkeypatch, caplog):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        monkeypatch.setattr(nodes.parties[2], "drop", lambda _: 1 / 0)
        with pytest.raises(ProtocolError, match="party 2 could not answer a 'drop' request"):
            await client.drop(["x"])
        assert "division by zero" in caplog.text
        await client.put("x", KIND, WORDS)
        await client.run(squares())


async def test_a_value_that_one_node_lacks_fails_everywhere_at_once(open_cluster_of_nodes, autojump_clock):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        nodes.parties[1].drop(["x"])
        began = trio.current_time()
        with pytest.raises(PlanError, match="nothing is stored under 'x'"):
            await client.run(squares())
        assert trio.current_time() - began < 1
        b = Builder("other", tile_rows=128)
        b.input("x", KIND).reveal("x", to="analyst")
        with pytest.raises(PlanError, match="tiles of 128 rows"):
            await client.run(b.plan())


async def test_different_plans_under_one_session_are_refused(open_cluster_of_nodes):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        errors = []

        async def run(party):
            try:
                await party.run_plan(b"session", squares(f"plan {party.index}").to_bytes())
            except PlanError as error:
                errors.append(str(error))

        async with trio.open_nursery() as nursery:
            for party in nodes.parties:
                nursery.start_soon(run, party)
        assert len(errors) == 3
        assert all("different plans under one session" in error for error in errors)
        with pytest.raises(PlanError, match="different plans"):
            await nodes.parties[0].run_plan(b"session", squares().to_bytes())


async def test_a_plan_that_only_some_nodes_get(open_cluster_of_nodes, autojump_clock):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        for party, why in ((0, "party 1, party 2 did not start"), (2, "party 1, party 2 did not start")):
            with pytest.raises(PeerLost, match=why) as caught:
                await nodes.parties[party].run_plan(b"lonely", squares().to_bytes())
            assert caught.value.peer == "party 1"
        await client.run(squares())


# -- clients that leave --------------------------------------------------------------------------------------


def sessions(nodes):
    return [len(party._sessions) for party in nodes.parties]


async def test_a_client_that_leaves_takes_its_sessions_along(open_cluster_of_nodes):
    async with open_cluster_of_nodes(Waits) as nodes:
        stays = await nodes.client()
        await stays.put("x", KIND, WORDS)
        async with trio.open_nursery() as leaving:
            leaves = await nodes.client(nursery=leaving)
            leaving.start_soon(leaves.run, endless())
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert sessions(nodes) == [1, 1, 1]
            leaving.cancel_scope.cancel()
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert sessions(nodes) == [0, 0, 0]
        b = Builder("next", tile_rows=64)
        b.input("x", KIND).reveal("x", to="analyst")
        await stays.run(b.plan())


async def test_a_client_that_loses_one_node_ends_the_session_at_all(open_cluster_of_nodes):
    async with open_cluster_of_nodes(Waits) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        errors = []

        async def run():
            with pytest.raises(PeerLost) as caught:
                await client.run(endless())
            errors.append(caught.value)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked(0.1)
            assert sessions(nodes) == [1, 1, 1]
            await client._nodes[1].line.link.aclose()
        assert errors[0].peer == "party 1"
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert sessions(nodes) == [0, 0, 0]
        with pytest.raises(PeerLost) as again:
            await client.drop(["x"])
        assert again.value.peer == "party 1"
        other = await nodes.client()
        await other.drop(["x"])


async def test_a_run_that_is_cancelled_stops_at_the_nodes(open_cluster_of_nodes):
    async with open_cluster_of_nodes(Waits) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        with trio.move_on_after(0.2):
            await client.run(endless())
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert sessions(nodes) == [0, 0, 0]
        await client.drop(["x"])


# -- peers that fail -----------------------------------------------------------------------------------------


FAULTS = [Fault.STALL, Fault.CLOSE, Fault.TRUNCATE, Fault.DROP]


@pytest.mark.parametrize("after", [1, 2, 5, 9])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_link_that_goes_wrong(fault, after, open_cluster_of_nodes, autojump_clock):
    def wrap(index, link):
        return FaultyLink(link, fault, after=after) if (index, link.peer) == (1, "party 0") else link

    async with open_cluster_of_nodes(wrap=wrap) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        began = trio.current_time()
        with pytest.raises(PeerLost) as caught:
            while True:
                await client.run(squares())
                await trio.sleep(0.1)
        assert caught.value.peer in ("party 0", "party 1")
        assert trio.current_time() - began < 4.0 * (after + 2)
        began = trio.current_time()
        other = await nodes.client()
        with pytest.raises(PeerLost) as again:
            await other.run(squares())
        assert again.value.peer in ("party 0", "party 1")
        assert trio.current_time() - began < 1
        await other.put("y", KIND, WORDS)


@pytest.mark.parametrize("after", range(1, 9))
async def test_a_damaged_header_never_hangs_a_run(after, open_cluster_of_nodes, autojump_clock):
    # Without TLS a flipped bit can read as another plan, session or word; it must end in an error, whichever.
    def wrap(index, link):
        if (index, link.peer) != (1, "party 0"):
            return link
        return FaultyLink(link, Fault.FLIP_HEADER, after=after)

    async with open_cluster_of_nodes(wrap=wrap) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        with trio.fail_after(60), pytest.raises(TercetError):
            while True:
                await client.run(squares())


@pytest.mark.parametrize(
    "message",
    [
        ["nonsense"],
        [1],
        ["data", b"never", []],
        ["data", 5, []],
        ["start", b"", b"", b"", [], b"", bytes(32)],
        ["start", b"name", b"short", b"short", [], b"", bytes(32)],
        ["start", b"n" * 100, bytes(32), bytes(32), [], b"", bytes(32)],
        ["start", b"name", bytes(32), bytes(32)],
        ["start", b"name", bytes(32), bytes(32), [bytes(32)], b"", bytes(32)],
        ["start", b"name", bytes(32), bytes(32), [], b"short", bytes(32)],
        ["start", b"name", bytes(32), bytes(32), [], None, bytes(32)],
        ["start", b"name", bytes(32), bytes(32), [], b"", b"short"],
        ["confirm", b"never", [bytes(32)]],
        ["stop", b"name", "why"],
        ["more"],
    ],
)
async def test_garbage_from_a_peer_ends_its_line(message, open_cluster_of_nodes):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        nodes.parties[2]._peers[0].line.post(message)
        await trio.testing.wait_all_tasks_blocked()
        lost = nodes.parties[0]._peers[2].line.lost
        assert lost is not None
        assert lost.peer == "party 2"
        with pytest.raises(PeerLost) as caught:
            await client.run(squares())
        assert caught.value.peer in ("party 0", "party 2")


async def test_a_payload_that_nobody_asked_for_is_not_allocated(open_cluster_of_nodes):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        line = nodes.parties[2]._peers[0].line
        await line.link.send(
            pack_message([line._sent + 1, 1 << 60, ["start", b"a", b"b"]]), [bytes(CHUNK_BYTES)]
        )
        await trio.testing.wait_all_tasks_blocked()
        assert "which has none" in str(nodes.parties[0]._peers[2].line.lost)


async def test_early_starts_are_bounded(open_cluster_of_nodes):
    async with open_cluster_of_nodes() as nodes:
        line = nodes.parties[2]._peers[0].line
        for number in range(3 * MOST_EARLY_STARTS):
            line.post(["start", number.to_bytes(4, "little"), bytes(32), bytes(32), [], b"", bytes(32)])
        await trio.testing.wait_all_tasks_blocked()
        assert len(nodes.parties[0]._peers[2].early) == MOST_EARLY_STARTS
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        await client.run(squares())


@pytest.mark.parametrize(
    ("lockstep", "entries", "why"),
    [
        (
            False,
            [[1, 0, 1, [1 << 18]]],
            r"party 2 sent 262144 words up to step 1 of node 1 \(truncate\), tile 0",
        ),
        (True, 2, "party 2 sent 2097152 bytes up to round 2, where its protocol declares"),
        (True, 9, "party 2 sent 2097152 bytes for round 9 after round 0"),
        (True, -1, "party 2 sent 2097152 bytes for round -1 after round 0"),
        (True, True, "party 2 sent 2097152 bytes for round True after round 0"),
        (True, [[1, 0, 1, [1 << 18]]], r"party 2 sent 2097152 bytes for round \[\[1"),
        (True, None, "party 2 sent 2097152 bytes for round None"),
        (False, 3, "party 2"),
        (False, None, "party 2"),
        (False, [[1, 0, 1]], "party 2"),
        (False, [3], "party 2"),
    ],
)
async def test_mail_beyond_the_declared_fails_the_session_not_the_node(
    lockstep, entries, why, open_cluster_of_nodes, monkeypatch
):
    monkeypatch.setattr("tercet.actors.session.runs_in_lockstep", lambda _: lockstep)
    async with open_cluster_of_nodes(Waits) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        errors = []

        async def run():
            with pytest.raises(ProtocolError) as caught:
                await client.run(endless())
            errors.append(str(caught.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked(0.1)
            (name,) = nodes.parties[0]._sessions
            words = np.zeros(1 << 18, dtype=np.uint64)
            await nodes.parties[2]._peers[0].line.send(["data", name, entries], [words])
        assert re.search(why, errors[0])
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert sessions(nodes) == [0, 0, 0]
        b = Builder("next", tile_rows=64)
        b.input("x", KIND).reveal("x", to="analyst")
        await client.run(b.plan())


def _spoilt(way, message, words):
    """What a corrupt party sends in the place of the frame of a round: messages, one after the other."""
    kind, name, number = message
    honest = (message, words)
    match way:
        case "twice":
            return [honest, honest]
        case "short":
            return [(message, words[:-1])]
        case "long":
            return [(message, np.append(words, words[:1]))]
        case "empty":
            return [(message, words[:0])]
        case "empty as well":
            return [honest, ([kind, name, number + 1], words[:0])]
        case "later":
            return [([kind, name, number + 1], words)]
        case "all at once":
            return [([kind, name, one], words[:1]) for one in range(number, number + 2)]
        case "in entries":
            return [([kind, name, [[1, 0, number - 1, [words.size]]]], words)]
        case "as a number of another type":
            return [([kind, name, float(number)], words)]
        case "after a stop":
            return [(["stop", name, PlanError("enough").to_wire()], words[:0]), honest]
        case "after another start":
            return [(["start", name, bytes(32), bytes(32), [], b"", bytes(32)], words[:0]), honest]
        case _:
            return []


@pytest.mark.parametrize(
    "way",
    ["twice", "short", "long", "empty", "empty as well", "later", "all at once", "in entries",
     "as a number of another type", "after a stop", "after another start"],
)  # fmt: skip
async def test_a_party_that_spoils_its_rounds_ends_the_run_and_nothing_else(
    way, open_cluster_of_nodes, monkeypatch, autojump_clock
):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        corrupt = nodes.parties[2]

        async def send_frames(session, number, frames):
            for peer, arrays in frames.items():
                words = np.concatenate([array.reshape(-1) for array in arrays])
                for message, payload in _spoilt(way, ["data", session, number], words):
                    await corrupt._peers[peer].line.send(message, [payload])

        monkeypatch.setattr(corrupt, "send_frames", send_frames)
        with trio.fail_after(60), pytest.raises(TercetError):
            await client.run(squares())
        await trio.testing.wait_all_tasks_blocked()
        assert sessions(nodes) == [0, 0, 0]
        monkeypatch.undo()
        result = await client.run(squares())
        np.testing.assert_allclose(result.revealed["squares"], np.arange(10.0) ** 2, atol=2.0**-8)


async def test_frames_of_a_run_that_is_over_are_ignored(open_cluster_of_nodes):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        await client.run(squares())
        (name,) = nodes.parties[0]._over
        line = nodes.parties[2]._peers[0].line
        for entries in (1, 1 << 60, [[1, 0, 0, [10]]], None):
            await line.send(["data", name, entries], [WORDS])
            await line.send(["data", name, entries])
        line.post(["start", name, bytes(32), bytes(32), [], b"", bytes(32)])
        await trio.testing.wait_all_tasks_blocked()
        assert nodes.parties[0]._peers[2].line.lost is None
        await client.run(squares())


# -- strangers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hello",
    [
        [],
        ["hello"],
        ["hello", 1, "client", "replicated", 3, bytes(32)],
        ["hello", VERSION, "client", "replicated", 3, b"", "noon", bytes(32)],
        Hello("client", "plain", 1),
        Hello("client", "replicated", 3, lake=b"another"),
        Hello("client", "replicated", 3, contribution=b"short"),
        Hello("client", "replicated", 3, clock=time.time() - 10_000),
        Hello("client", "replicated", 3, clock=float("nan")),
        Hello("party 2", "replicated", 3),
        Hello("party 9", "replicated", 3),
        {"hello": 1},
        7,
    ],
)
async def test_a_stranger_is_turned_away(hello, open_cluster_of_nodes):
    async with open_cluster_of_nodes() as nodes:
        link = (await nodes.links())[0]
        await link.send(pack_message(hello.to_wire() if isinstance(hello, Hello) else hello))
        await link.receive_header()
        with pytest.raises(PeerLost):
            await link.receive_header()
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        await client.run(squares())


async def test_a_stranger_that_says_nothing_is_dropped(open_cluster_of_nodes, autojump_clock):
    async with open_cluster_of_nodes(timeout_s=2) as nodes:
        link = (await nodes.links())[0]
        await link.receive_header()
        with pytest.raises(PeerLost):
            await link.receive_header()
        assert trio.current_time() >= 2


@pytest.mark.parametrize(
    "message",
    [
        ["nonsense", 1],
        ["submit", 1],
        ["submit", 1, 5, 5],
        ["submit", 1, b"name", b"plan", "no number", False],
        ["submit", 1, b"name", b"plan", float("nan"), False],
        ["submit", 1, b"name", b"plan", -1.0, False],
        ["submit", 1, b"name", b"plan", 1e9, False],
        ["submit", 1, b"name", b"plan", 0.0, False],
        ["fetch", 1, b"nothing"],
        ["end", 1, b"nothing"],
        ["put", 1],
        ["drop", 1, 3],
        ["trace", 1, 3],
    ],
)
async def test_a_request_that_makes_no_sense_is_answered(message, open_cluster_of_nodes):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        with pytest.raises(TercetError):
            await client._ask_all([_raw(message)] * 3)
        await client.put("x", KIND, WORDS)
        await client.run(squares())


def _raw(message):
    return Request(message[0], message[2:])


@pytest.mark.parametrize("message", [["run"], [5, 5], ["run", "one"], []])
async def test_a_client_that_talks_garbage_is_dropped(message, open_cluster_of_nodes):
    async with open_cluster_of_nodes() as nodes:
        link = (await nodes.links())[0]
        await greet(link, Hello(CLIENT, "replicated", 3), timeout_s=1)
        await link.send(pack_message([1, 0, message]))
        with pytest.raises(PeerLost):
            while True:
                await link.receive_header()
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        await client.run(squares())


# -- whose fault it was --------------------------------------------------------------------------------------


def lost(name):
    return PeerLost(f"{name} is gone", peer=name)


def test_the_verdict():
    assert verdict({0: lost("party 1"), 2: lost("party 1")}).peer == "party 1"
    both = verdict({0: lost("party 1"), 1: lost("party 0"), 2: lost("party 1")})
    assert both.peer == "party 1"
    assert "party 0 and party 1 lost each other" in str(both)
    cause = TransportError("first")
    assert verdict({0: lost("party 1"), 1: cause}) is cause


class Damaged(Replicated):
    def truncate(self, x, bits):
        if self.party == 1:
            raise StorageError("a file is damaged")
        yield Round(recv={1: [(1,)]})
        return x


async def test_a_disk_is_named_by_whoever_tells_of_it(open_cluster_of_nodes):
    async with open_cluster_of_nodes(Damaged) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        with pytest.raises(StorageError, match="a file is damaged") as raised:
            await client.run(squares())
        told = "party 1: node 2 (truncate): a file is damaged"
        assert (str(raised.value), raised.value.party) == (told, "party 1")
        for party in nodes.parties:
            await party.until_idle()
            assert [str(error) for error in party._over.values()] == [told]


def test_a_disk_is_named_by_the_client():
    told = verdict({0: lost("party 1"), 1: StorageError("a file is damaged")})
    assert str(told) == "party 1: a file is damaged"
    passed_on = from_wire(told.to_wire())
    assert str(verdict({0: passed_on, 1: passed_on})) == "party 0 says: party 1: a file is damaged"
