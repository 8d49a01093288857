"""Keys of a session: of pairs, from what the two alone have said, and of groups, once all of them agree."""

from __future__ import annotations

import numpy as np

from tercet.plans import Builder, Form, Type
from tercet.protocols.replicated import Replicated

KIND = Type(Form.RING, (10,), 8, 2.0**30)
WORDS = np.arange(10, dtype=np.uint64) << np.uint64(8)


def revealing():
    b = Builder("revealing", tile_rows=64)
    b.input("x", KIND).reveal("x", to="analyst")
    return b.plan()


def spoil_posts(party, peer, spoil):
    """Have a party post other messages to a peer: `spoil` gives a list of them for each."""
    line = party._peers[peer].line
    post = line.post

    def posting(message):
        for one in spoil(message):
            post(one)

    line.post = posting


def noting_keys(cls, noted):
    """The protocol, whose instances put the keys that they are given into `noted`, by party."""

    def init(self, *, party, parties, keys):
        cls.__init__(self, party=party, parties=parties, keys=keys)
        noted.setdefault(party, []).append(dict(keys))

    return type("Noting", (cls,), {"__init__": init})


# -- of pairs ------------------------------------------------------------------------------------------------


async def test_what_a_third_party_says_changes_no_key_of_a_pair(open_cluster_of_nodes):
    noted = {}
    async with open_cluster_of_nodes(noting_keys(Replicated, noted)) as nodes:
        client = await nodes.client()
        await client.put("x", KIND, WORDS)
        noted.clear()

        def another(message):
            return [[*message[:3], bytes(32), *message[4:]] if message[0] == "start" else message]

        spoil_posts(nodes.parties[2], 0, another)
        await client.run(revealing())
    (zero,), (one,), (two,) = (
        [keys for keys in noted[party] if keys[(party + 1) % 3] != bytes(32)] for party in range(3)
    )
    assert zero[1] == one[0]
    assert one[2] == two[1]
    assert zero[2] != two[0]
