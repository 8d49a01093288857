"""What travels between workers of different parties tells nothing of secrets, and nobody else is linked.

Everything that workers receive is written down, of the same shares twice and of other secrets. Each
statistical test alarms falsely with a chance of `secrecy.FALSE_ALARM`; there are some 250 of them.
"""

from __future__ import annotations

import itertools
from collections import Counter

import attrs
import numpy as np
import pytest

import tercet
from tercet.actors import fellows, muster, node, worker
from tercet.actors.peer import Peer
from tercet.plans import Builder, Form, Type, sigmoid
from tercet.protocols import registry
from tercet.testing.engines import Tasks
from tercet.testing.secrecy import check_alike, check_uniform, check_unrelated, has_repeats
from tercet.transports.names import CLIENT, FOREMAN, party_name, worker_name

ROWS, TILE, WORKERS = 2048, 128, 2
X = Type(Form.RING, (2, ROWS), 8, 2.0**11)
KEYS = Type(Form.WORDS, (2, ROWS))
FEWEST = 1024
"""Words below which bytes are too few to compare how they are distributed."""
PROTOCOLS = ["replicated", "shamir", "rep4"]


def plan():
    """What is made row by row on workers, and on rows that they have shuffled together."""
    b = Builder("links", tile_rows=TILE)
    x, keys = b.input("x", X), b.input("keys", KEYS)
    x0, x1 = (x.select([row]).squeeze() for row in (0, 1))
    sums = [(x0 * x1).rescale(8), (x1 > x0).to_ring().at_scale(8), keys.are_zero().to_ring().at_scale(8)]
    sums += x0.fourier(sigmoid(8.0, 1e-3), dealt_bits=20, coefficient_bits=14)
    names = b.apply("prf", b.random_words(2), keys & b.apply("masks", x0 < 0))
    words, moved = b.apply_all("shuffle", names, x)
    sums.append((moved * moved).rescale(8))
    words.store("names")
    for number, value in enumerate(sums):
        value.sum().reveal(str(number), to="analyst")
    x.dot(x).reveal("dot", to="analyst")
    return b.plan()


@attrs.frozen
class Record:
    """All that was heard, by session and link, `(receiver, sender)`; who greeted whom; streams drawn."""

    heard: dict
    hellos: Counter
    drawn: dict


@pytest.fixture
def record(monkeypatch):
    """Watches all links and all streams of lakes that the test opens."""
    made = Record({}, Counter(), {})
    take, greet = Peer.take, worker.greet

    def taking(peer, message, payload):
        if message[0] == "data":
            way = peer.party.called(peer.party.index), peer.party.called(peer.index)
            found, start = made.heard.setdefault(message[1], {}).setdefault(way, {}), 0
            for *place, sizes in message[2]:
                found[tuple(place)] = payload[start : start + sum(sizes)].copy()
                start += sum(sizes)
        take(peer, message, payload)

    async def greeting(link, mine, **options):
        theirs = await greet(link, mine, **options)
        made.hellos[frozenset([mine.role, theirs.role])] += 1
        return theirs

    monkeypatch.setattr(Peer, "take", taking)
    for module in (fellows, muster, node, worker):
        monkeypatch.setattr(module, "greet", greeting)
    for name in PROTOCOLS:
        monkeypatch.setattr(registry.get(name), "stream", watched(registry.get(name).stream, made.drawn))
    return made


def watched(stream, drawn):
    """A method that makes streams, and notes all that are made at each party, whichever member does."""

    def noting(protocol, *names):
        drawn.setdefault(protocol.party, []).append(names)
        return stream(protocol, *names)

    return noting


async def run(protocol, x, keys, times):
    """Deal these words, and run the plan so often on the same shares."""
    async with tercet.open_local(
        protocol=protocol, tile_rows=TILE, workers=WORKERS, engine=lambda *made: Tasks(*made)
    ) as lake:
        client = lake.cluster.client
        await client.put("x", X, np.full((2, ROWS), x, np.int64).view(np.uint64))
        await client.put("keys", KEYS, np.full((2, ROWS), keys, np.uint64))
        for _ in range(times):
            await lake.run(plan())


def own(party):
    """The names of a party's workers."""
    return [worker_name(party, number) for number in range(WORKERS)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_links_tell_nothing(protocol, record):
    """Zeros twice, and then the largest numbers: as long, as uniform, and all of it unrelated."""
    await run(protocol, 0, 0, times=2)
    await run(protocol, 2**11 - 1, 2**64 - 1, times=1)
    cls = registry.get(protocol)
    runs = [
        {way: np.concatenate([found[place] for place in sorted(found)]) for way, found in of.items()}
        for of in record.heard.values()
    ]
    sizes = [
        {way: {place: words.size for place, words in found.items()} for way, found in of.items()}
        for of in record.heard.values()
    ]
    assert len(runs) == 3
    assert sizes[0] == sizes[1] == sizes[2]
    pairs = list(itertools.permutations(range(cls.sizes[0]), 2))
    links = [(worker_name(one, k), worker_name(other, k)) for one, other in pairs for k in range(WORKERS)]
    assert {way for way in runs[0] if way[0] not in map(party_name, range(cls.sizes[0]))} == set(links)
    for party, number in itertools.product(range(cls.sizes[0]), range(WORKERS)):
        name = worker_name(party, number)
        mine = [way for way in links if way[0] == name]
        require_secrecy(cls, f"what {name} hears", [np.concatenate([of[way] for way in mine]) for of in runs])
        for way in mine:
            require_secrecy(cls, f"what {name} hears of {way[1]}", [of[way] for of in runs])
    for party in range(cls.sizes[0]) if cls.words_uniform else ():
        heard = [of[way] for of in runs for way in links if way[0] in own(party)]
        assert not has_repeats(np.concatenate(heard)), f"two workers of party {party} hear one word"
    require_own_links(record.hellos, cls.sizes[0])
    for party, names in record.drawn.items():
        assert len(names) == len(set(names)) > 100, f"two members of party {party} draw one stream"


def require_secrecy(cls, what, heard):
    """Of zeros, of the same shares again, and of large numbers."""
    zeros, again, large = heard
    check_unrelated(cls, f"{what} in two runs on the same shares", zeros, again)
    if zeros.size >= FEWEST:
        check_alike(f"{what} tells zeros from large numbers", zeros, large)
    if cls.words_uniform:
        check_uniform(f"{what} is not uniform", large)


def require_own_links(hellos, parties):
    """Nodes and workers are linked to those of their kind at each other party, and with all of their own.

    A worker that calls a fellow is answered with the name of their party.
    """
    times = 4  # there are two lakes, and both ends of a link say hello
    between = {frozenset(map(party_name, pair)) for pair in itertools.combinations(range(parties), 2)}
    inside = {frozenset([FOREMAN, name]) for party in range(parties) for name in own(party)}
    calls = {frozenset([party_name(party), own(party)[1]]) for party in range(parties)}
    expected = dict.fromkeys(between, times * (1 + WORKERS)) | dict.fromkeys(inside | calls, times)
    assert {ends: count for ends, count in hellos.items() if CLIENT not in ends} == expected
