"""Values that come in pieces: the same as at once, and nothing is left of those that do not come in full."""

from __future__ import annotations

import numpy as np
import pytest
import trio

from tercet.actors.arrivals import Gathering, Piece
from tercet.actors.values import type_fields
from tercet.client.client import piece_rows
from tercet.client.connection import Request
from tercet.errors import PlanError
from tercet.plans import Form, Type
from tercet.protocols.domains import Z64
from tercet.protocols.plain import Plain
from tercet.protocols.replicated import Replicated


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr("tercet.client.client.PIECE_BYTES", 2500)


def test_pieces_are_whole_tiles():
    assert piece_rows(Type(Form.RING, (1000,), 0, 1.0), 64) == 256
    assert piece_rows(Type(Form.RING, (4, 1000), 0, 1.0), 64) == 64
    assert piece_rows(Type(Form.RING, (100, 1000), 0, 1.0), 64) == 64
    assert piece_rows(Type(Form.RING, (), 0, 1.0), 64) > 0


@pytest.mark.parametrize("protocol", [Plain, Replicated])
async def test_a_plan_on_values_in_pieces(protocol, open_cluster_of_nodes, example, verified):
    async with open_cluster_of_nodes(protocol) as nodes:
        client = await nodes.client()
        one = example(700)
        asked = []
        for handle, (kind, words) in one.inputs.items():

            def rows(start, stop, words=words):
                asked.append((start, stop))
                return words[..., start:stop]

            await client.put_rows(handle, kind, rows)
        assert asked[:3] == [(0, 64), (64, 128), (128, 192)]
        verified(one, (await client.run(one.plan)).revealed)
        stored = nodes.parties[0].store["x"]
        assert [tile.shape for tile in stored.tiles] == [(3, 64)] * 10 + [(3, 60)]


KIND = Type(Form.RING, (200,), 8, 2.0**30)


def request(client, start, rows, *, kind=KIND, tile_rows=64):
    words = np.zeros(max(rows, 0), dtype=np.uint64)
    dealt = client.protocol.deal(words, domain=Z64, parties=client.parties)
    return [Request("put", ["x", type_fields(kind), tile_rows, start, rows], parts) for parts in dealt]


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([(64, 64)], "not what is due"),
        ([(0, 64), (128, 72)], "not what is due"),
        ([(0, 64), (0, 64)], "not what is due"),
        ([(0, 63)], "no whole tiles"),
        ([(0, 0)], "no whole tiles"),
        ([(0, 256)], "no whole tiles"),
        ([(-64, 64)], "no whole tiles"),
        ([(1, 64)], "no whole tiles"),
    ],
)
async def test_pieces_that_are_not_due(pieces, why, open_cluster_of_nodes):
    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        with pytest.raises(PlanError, match=why):
            for start, rows in pieces:
                await client._ask_all(request(client, start, rows))
        assert all(party.store == {} for party in nodes.parties)


async def test_half_a_value_is_none(open_cluster_of_nodes, monkeypatch):
    """A source that fails, and a client that leaves: sinks are told, and nothing is stored."""
    aborted, all_told = [], [trio.Event(), trio.Event()]

    def abort(self):
        aborted.append(len(self.tiles))
        if len(aborted) % 3 == 0:
            trio.from_thread.run_sync(all_told[len(aborted) // 3 - 1].set)

    monkeypatch.setattr(Gathering, "abort", abort)

    def rows(start, stop):
        if start:
            raise OSError("the file is gone")
        return np.zeros(stop - start, dtype=np.uint64)

    async with open_cluster_of_nodes() as nodes:
        client = await nodes.client()
        with pytest.raises(OSError, match="the file is gone"):
            await client.put_rows("x", Type(Form.RING, (1000,), 8, 2.0**30), rows)
        with trio.fail_after(60):
            await all_told[0].wait()
        assert aborted == [4] * 3
        async with trio.open_nursery() as leaving:
            other = await nodes.client(nursery=leaving)
            await other._ask_all(request(other, 0, 128))
            leaving.cancel_scope.cancel()
        with trio.fail_after(60):
            await all_told[1].wait()
        assert all(party.store == {} for party in nodes.parties)
        await client.put("x", KIND, np.zeros(200, dtype=np.uint64))


def test_a_piece_knows_its_type():
    piece = Piece(Type(Form.RING, (3, 200), 8, 1.0), 64, 128, 72)
    piece.check()
    assert (piece.own_type.shape, piece.first, piece.last) == ((3, 72), False, True)
    single = Piece(Type(Form.RING, (), 8, 1.0), 64, 0, 1)
    single.check()
    assert (single.own_type.shape, single.first, single.last) == ((), True, True)
    with pytest.raises(PlanError, match="multiple of 64"):
        Piece(KIND, 100, 0, 200).check()
