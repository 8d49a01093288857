"""Operations that members of a party run together give what one member alone does, whatever their blocks."""

from __future__ import annotations

import functools
import itertools
import sys
from collections import Counter

import numpy as np
import pytest

from tercet.errors import ProtocolError
from tercet.protocols import ranking, registry, together, word_order
from tercet.protocols.domains import BITS, Z64
from tercet.protocols.plain import Plain
from tercet.protocols.prg import Stream
from tercet.protocols.shares import Exchange, Round, gather
from tercet.protocols.together import Team
from tercet.testing.lockstep import parties, reconstruct, share

NAMES = ["plain", "replicated", "shamir", "rep4"]
TILE = 64
PLAIN = parties(Plain)[0]


def run(operations, heard=None):
    """Run an operation at every member of every party, `operations[party][member]`; results alike.

    A member goes on once it has what its fellows, or the same members of other parties, have for it. What
    members send to each other is noted in `heard`: (party, sender, receiver, shapes).
    """
    count, size = len(operations), len(operations[0])
    places = list(itertools.product(range(count), range(size)))
    steps, results = {}, {}

    def advance(place, got):
        operation = operations[place[0]][place[1]]
        try:
            steps[place] = next(operation) if got is None else operation.send(got)
        except StopIteration as stop:
            steps.pop(place, None)
            results[place] = stop.value

    for place in places:
        advance(place, None)
    while steps:
        exchanging = [
            party
            for party in range(count)
            if all(isinstance(steps.get((party, member)), Exchange) for member in range(size))
        ]
        talking = [
            member
            for member in range(size)
            if all(type(steps.get((party, member))) is Round for party in range(count))
        ]
        assert exchanging or talking, "members wait for each other"
        for party in exchanging:
            sent = [steps[party, member].send for member in range(size)]
            if heard is not None:
                for sender, receiver in itertools.permutations(range(size), 2):
                    shapes = [array.shape for array in sent[sender].get(receiver, ())]
                    heard.append((party, sender, receiver, shapes))
            for member in range(size):
                advance((party, member), {other: list(sent[other].get(member, ())) for other in range(size)})
        for member in talking:
            rounds = [steps[party, member] for party in range(count)]
            for party in range(count):
                got = {
                    peer: [np.ascontiguousarray(array) for array in rounds[peer].send.get(party, ())]
                    for peer in range(count)
                    if peer != party
                }
                for peer, shapes in rounds[party].recv.items():
                    assert [array.shape for array in got[peer]] == [tuple(shape) for shape in shapes]
                advance((party, member), got)
    return [[results[party, member] for member in range(size)] for party in range(count)]


def members(cls, size, rows, *, seed=b"", openings=0):
    """Protocols by member and party, each member with keys of its own, in a team."""
    made = []
    for member in range(size):
        session = [
            one.bind("together", openings=openings) for one in parties(cls, seed=b"%d/%s" % (member, seed))
        ]
        for one in session:
            one.team = Team(member, size, TILE, (rows,))
        made.append(session)
    return made


def stream(name, use):
    return Stream(bytes(32), f"{name}/{use}".encode())


def blocks(each, words, *, domain=Z64):
    """Shares of the blocks of words `(..., rows)`, by member and party."""
    made = []
    for session in each:
        block = session[0].team.block(words.shape[-1])
        part = np.ascontiguousarray(words[..., block.start : block.stop])
        made.append(share(session, part, domain=domain))
    return made


def whole(each, shares):
    """The words behind shares of blocks, by party and member."""
    parts = [
        reconstruct(session, [of_party[member] for of_party in shares]) for member, session in enumerate(each)
    ]
    return np.concatenate(parts, axis=-1)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("rows", [0, 1, 64, 65, 200, 1000])
def test_blocks_are_neighbouring_tiles(size, rows):
    team = Team(0, size, TILE, (rows,))
    bounds = team.bounds(rows)
    assert bounds[0] == 0
    assert bounds[-1] == rows
    assert bounds == sorted(bounds)
    assert all(bound % TILE == 0 or bound == rows for bound in bounds)


def test_every_order_is_as_likely():
    """Of four rows at two members: 24 orders, by chi-square. Streams are fixed: never fails by chance."""
    found = Counter()
    rows, tries = np.arange(4, dtype=np.uint64)[:, None], 1200
    for number in range(tries):
        teams = [Team(member, 2, 2, (4,)) for member in range(2)]
        (made,) = run(
            [
                [
                    together.permute(
                        PLAIN,
                        team,
                        [rows[2 * team.member :][:2]],
                        functools.partial(stream, f"{number}/{team.member}"),
                    )
                    for team in teams
                ]
            ]
        )
        found[tuple(int(word) for (table,) in made for word in table[:, 0])] += 1
    assert len(found) == 24
    expected = tries / 24
    assert sum((count - expected) ** 2 / expected for count in found.values()) < 74.7


def test_what_members_send_depends_on_sizes_alone():
    """Not on how many rows the draw moves from one to another."""
    told = []
    for number in range(20):
        heard = []
        teams = [Team(member, 3, TILE, (1000,)) for member in range(3)]
        run(
            [
                [
                    together.permute(
                        PLAIN,
                        team,
                        [np.zeros((len(team.block(1000)), 5), dtype=np.uint64)],
                        functools.partial(stream, f"{number}/{team.member}"),
                    )
                    for team in teams
                ]
            ],
            heard,
        )
        told.append(heard)
    assert all(heard == told[0] for heard in told)
    assert told[0]


@pytest.mark.parametrize("reach", [sys.maxsize, 640])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_shuffles_move_all_columns_alike(name, size, reach):
    """Also where few of the rows may be read in random order."""
    rows = 333
    each = members(registry.get(name), size, rows)
    for protocol in itertools.chain(*each):
        protocol.reach = reach
    numbers = np.arange(rows, dtype=np.uint64)
    matrix = np.stack([numbers * 3, numbers + 7])
    held = [
        blocks(each, numbers),
        blocks(each, matrix),
        blocks(each, matrix ^ np.uint64(5), domain=BITS),
    ]
    made = run(
        [
            [
                each[member][party].shuffle([column[member][party] for column in held])
                for member in range(size)
            ]
            for party in range(len(each[0]))
        ]
    )
    columns = [
        whole(each, [[of_member[number] for of_member in of_party] for of_party in made])
        for number in range(3)
    ]
    assert sorted(columns[0].tolist()) == numbers.tolist()
    assert columns[0].tolist() != numbers.tolist()
    np.testing.assert_array_equal(
        columns[1], np.stack([columns[0] * np.uint64(3), columns[0] + np.uint64(7)])
    )
    np.testing.assert_array_equal(columns[2], columns[1] ^ np.uint64(5))


@pytest.mark.parametrize(("rows", "size"), [(1, 2), (65, 2), (333, 3), (2000, 2), (2000, 5)])
@pytest.mark.parametrize("name", ["plain", "replicated"])
def test_sorts_keep_ties_in_their_order(name, rows, size):
    keys = np.random.default_rng(rows).integers(-20, 20, size=rows)
    numbers = np.arange(rows, dtype=np.uint64)
    team = Team(0, size, TILE, (rows,))
    each = members(registry.get(name), size, rows, openings=ranking.openings_together(team))
    held = [blocks(each, keys.view(np.uint64)), blocks(each, numbers)]
    made = run(
        [
            [
                ranking.sort_rows(each[member][party], [column[member][party] for column in held], 8)
                for member in range(size)
            ]
            for party in range(len(each[0]))
        ]
    )
    order = whole(each, [[of_member[1] for of_member in of_party] for of_party in made])
    np.testing.assert_array_equal(order, np.lexsort((np.arange(rows), keys)))


@pytest.mark.parametrize("first", [None, 400])
def test_equal_words_come_together(first):
    rows, size = 800, 3
    random = np.random.default_rng(5)
    half = random.integers(0, 1 << 64, size=(2, 400), dtype=np.uint64)
    words = np.concatenate([half, half[:, random.permutation(400)]], axis=1)
    numbers = np.arange(rows, dtype=np.uint64)
    team = Team(0, size, TILE, (rows,))
    each = members(registry.get("replicated"), size, rows, openings=ranking.openings_together(team))
    held = [blocks(each, words, domain=BITS), blocks(each, numbers)]
    made = run(
        [
            [
                word_order.sort_by_words(
                    each[member][party], [column[member][party] for column in held], first
                )
                for member in range(size)
            ]
            for party in range(3)
        ]
    )
    order = whole(each, [[of_member[1] for of_member in of_party] for of_party in made])
    assert sorted(order.tolist()) == numbers.tolist()
    arranged = words[:, order.astype(np.int64)]
    for place in range(0, rows, 2):
        assert (arranged[:, place] == arranged[:, place + 1]).all()
        assert order[place] < order[place + 1]


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("wanted", [0, 1, 63, 500])
def test_rows_by_public_position(wanted, size):
    rows = 300
    data = np.random.default_rng(1).integers(0, 1 << 64, size=(2, rows), dtype=np.uint64)
    places = np.random.default_rng(2).integers(0, rows, size=wanted)
    each = members(Plain, size, rows)
    held = blocks(each, data)
    made = run(
        [
            [
                together.take(
                    each[member][0],
                    each[member][0].team,
                    held[member][0],
                    places[(own := each[member][0].team.block(wanted)).start : own.stop],
                    rows,
                )
                for member in range(size)
            ]
        ]
    )
    np.testing.assert_array_equal(np.concatenate([x.data[0] for x in made[0]], axis=-1), data[:, places])


@pytest.mark.parametrize(
    "window", [(0, 300), (10, 290), (-5, 295), (5, 305), (-400, -100), (-64, 428), (7, 7)]
)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_neighbouring_rows(window, size):
    rows = 300
    data = np.arange(1, rows + 1, dtype=np.uint64)
    start, stop = window
    teams = [Team(member, size, TILE, (rows,)) for member in range(size)]
    spans = list(itertools.pairwise(teams[0].bounds(rows)))
    (made,) = run(
        [
            [
                together.place(
                    PLAIN, team, data[team.block(rows).start : team.block(rows).stop], start, stop, spans
                )
                for team in teams
            ]
        ]
    )
    wanted = [data[row] if 0 <= row < rows else 0 for row in range(start, stop)]
    assert np.concatenate(made).tolist() == wanted


@pytest.mark.parametrize("name", NAMES)
def test_running_totals(name):
    rows, size = 200, 5
    words = np.random.default_rng(3).integers(0, 1 << 40, size=(2, rows), dtype=np.uint64)
    each = members(registry.get(name), size, rows)
    held = blocks(each, words)
    made = run(
        [
            [
                together.cumulate(each[member][party], each[member][party].team, held[member][party])
                for member in range(size)
            ]
            for party in range(len(each[0]))
        ]
    )
    np.testing.assert_array_equal(whole(each, made), np.cumsum(words, axis=-1))


class Fixed:
    """A stream of one word again and again."""

    def __init__(self, word):
        self.word = word

    def fill(self, out):
        out[...] = self.word
        return out


def test_pieces_that_chance_does_not_allow_are_an_error():
    """All rows for one member; and a member whose fellows have sent it too many."""
    team, table = Team(0, 2, TILE, (4096,)), np.zeros((2048, 1), dtype=np.uint64)
    with pytest.raises(ProtocolError, match="more rows for one member than chance allows"):
        next(together.permute(PLAIN, team, [table], lambda _: Fixed(0)))
    shuffling = together.permute(PLAIN, team, [table.copy()], functools.partial(stream, "one"))
    sent = next(shuffling).send[0]
    counts = np.array([2048, 0], dtype=np.uint64)
    with pytest.raises(ProtocolError, match="more rows for one member than chance allows"):
        shuffling.send({0: sent, 1: [counts, np.zeros((2048, 1), dtype=np.uint64)]})


def handed_wrongly(operation, number, wrong):
    """Member 0 of two, when member 1 hands it something wrong in an exchange; all goes well before that."""
    members = [operation(Team(member, 2, TILE, (200,))) for member in range(2)]
    steps = [next(one) for one in members]
    for exchanges in itertools.count():
        got = [{sender: list(steps[sender].send.get(me, ())) for sender in range(2)} for me in range(2)]
        if exchanges == number:
            got[0][1] = wrong(got[0][1])
            members[0].send(got[0])
            return
        steps = [one.send(heard) for one, heard in zip(members, got, strict=True)]


def counts_of(*said):
    return lambda arrays: [np.array(said, dtype=np.int64).view(np.uint64), *arrays[1:]]


MALFORMED = {
    "nothing": lambda arrays: [],
    "more": lambda arrays: [*arrays, arrays[-1]],
    "too few rows": lambda arrays: [*arrays[:-1], arrays[-1][..., :-1]],
    "one row": lambda arrays: [*arrays[:-1], arrays[-1].reshape(-1)[:1]],
    "another shape": lambda arrays: [*arrays[:-1], arrays[-1][None]],
}
MISCOUNTED = {
    "more rows than there are": counts_of(64, 72),
    "less than no rows": counts_of(-8, 80),
    "very many rows": counts_of(2**63 - 1, 73 - 2**63),
    "too few receivers": counts_of(72),
    "no list": counts_of([36, 36]),
}


def block(team, width=3):
    return np.ones((width, len(team.block(200))), dtype=np.uint64)


def taking(team):
    return together.take(PLAIN, team, PLAIN.constant(block(team)), np.arange(200), 200)


MOVING = {
    "shuffle": (
        lambda team: together.permute(PLAIN, team, [block(team).T], functools.partial(stream, "one")),
        2,
    ),
    "hand out": (
        lambda team: together.hand_out(PLAIN, team, [block(team)], np.arange(len(team.block(200))) % 2),
        1,
    ),
    "place": (lambda team: together.place(PLAIN, team, block(team), 10, 180, [(0, 128), (128, 200)]), 1),
    "totals": (lambda team: together.cumulate(PLAIN, team, PLAIN.constant(block(team))), 1),
    "take": (taking, 2),
}
"""Operations of a member, and in how many exchanges."""
HANDED = [
    (name, number, what)
    for name, (_, exchanges) in MOVING.items()
    for number in range(exchanges)
    for what in MALFORMED
    # Whoever asks for rows asks for as many as it likes.
    if (name, number, what) not in [("take", 0, "too few rows"), ("take", 0, "one row")]
]
HANDED += [(name, 0, what) for name in ("shuffle", "hand out") for what in MISCOUNTED]


@pytest.mark.parametrize(("name", "number", "what"), HANDED)
def test_malformed_rows_of_a_fellow_are_refused(name, number, what):
    """They would be repeated where they are too few, or leave words that were never set."""
    with pytest.raises(ProtocolError, match="worker 1 of this party"):
        handed_wrongly(MOVING[name][0], number, {**MALFORMED, **MISCOUNTED}[what])


@pytest.mark.parametrize("place", [200, 2**63, 2**64 - 1])
def test_a_fellow_asks_for_rows_that_are_here(place):
    with pytest.raises(ProtocolError, match="worker 1 of this party asked for rows that are not at"):
        handed_wrongly(taking, 0, lambda _: [np.array([3, place], dtype=np.uint64)])


def test_more_members_than_can_be_told_apart():
    with pytest.raises(ProtocolError, match="65537 workers are more than 65536"):
        Team(0, 65537, TILE, (200,))


def test_operations_of_teams_do_not_go_side_by_side():
    """Members would take one operation's rows for another's."""

    def exchanging():
        yield Exchange()

    with pytest.raises(ProtocolError, match="cannot go side by side"):
        next(gather(exchanging(), exchanging()))
