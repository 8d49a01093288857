"""Boolean circuits over bit-sliced sharings, written once for every protocol that can multiply in `BITS`.

A plane is one bit of 64 rows per word, so an AND of planes is 64 ANDs. What is here: the carry tree that adds
two secret numbers just far enough to know the top bit, the AND tree behind equality, and Ascon-PRFshort for
keyed pseudonyms. The leaves of the trees depend on who knows which summand and belong to the protocol;
`nibble_one_hot` and `nibble_leaves` compute them.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from tercet.compiled import BOOLEAN, UINT64, kernel
from tercet.protocols.domains import BITS, Words
from tercet.protocols.kernels import IN2, OUT2
from tercet.protocols.shares import Cost, Op, Share, declared

if TYPE_CHECKING:
    from tercet.protocols.base import Protocol

# -- trees ---------------------------------------------------------------------------------------------------


def tree_widths(leaves: int) -> list[int]:
    """The number of nodes on each level below the leaves of a binary tree."""
    widths = []
    while leaves > 1:
        leaves = (leaves + 1) // 2
        widths.append(leaves)
    return widths


def _joined(shares: list[Share]) -> Share:
    return shares[0].like(np.concatenate([share.data for share in shares], axis=1))


def carry_tree(protocol: Protocol, generate: Share, propagate: Share) -> Op[Share]:
    """Carry out of all groups, from the groups' generate and propagate planes of shape `(groups, words)`.

    Groups run from the lowest bits up. log2(groups) rounds; one AND for each pair of groups and one for each
    pair but the lowest (its propagate bit is never used). Brent and Kung 1982.
    """
    g, p = generate.data, propagate.data
    while (groups := g.shape[1]) > 1:
        pairs, odd = groups // 2, groups % 2
        low, high = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
        left, right = (np.empty((len(g), 2 * pairs - 1, g.shape[2]), dtype=np.uint64) for _ in range(2))
        left[:, :pairs], left[:, pairs:] = p[:, high], p[:, high][:, 1:]
        right[:, :pairs], right[:, pairs:] = g[:, low], p[:, low][:, 1:]
        product = yield from protocol.mul(generate.like(left), generate.like(right))
        carried, kept = (np.empty((len(g), pairs + odd, g.shape[2]), dtype=np.uint64) for _ in range(2))
        np.bitwise_xor(product.data[:, :pairs], g[:, high], out=carried[:, :pairs])
        # The lowest propagate plane is a placeholder that keeps the groups' numbering; no product reads it.
        kept[:, 0], kept[:, 1:pairs] = p[:, 0], product.data[:, pairs:]
        if odd:
            carried[:, -1], kept[:, -1] = g[:, -1], p[:, -1]
        g, p = carried, kept
    return generate.like(g[:, 0])


def carry_tree_cost(protocol: Protocol, groups: int, words: int) -> Cost:
    """Cost of `carry_tree`."""
    cost = protocol.free()
    while groups > 1:
        pairs = groups // 2
        ands = protocol.spec((2 * pairs - 1, words), domain=BITS)
        cost = cost + protocol.cost("mul", ands, ands)
        groups -= pairs
    return cost


@functools.cache
def halves(planes: int) -> tuple[int, ...]:
    """The order of so many planes, lowest 0, in which `select_tree` finds neighbours without moving them.

    Those that are the upper ones of a pair come first, then the lower ones in the same order; the lowest of
    all is last, alone if they are odd in number. So are the results of the pairs again.
    """
    if planes < 2:
        return tuple(range(planes))
    odd = planes % 2
    above = [2 * pair - odd for pair in halves((planes + 1) // 2) if pair or not odd]
    return (*(low + 1 for low in above), *above, *([0] if odd else []))


def _ands_of(places: int) -> int:
    """How many ANDs a level of `select_tree` makes of two or more planes."""
    return 2 * (places // 2) - 1 + places % 2


def select_tree(protocol: Protocol, differ: Share, chosen: Share) -> Op[Share]:
    """The `chosen` bit at the highest place where `differ` is one, of planes `(places, words)`.

    Planes lie in the order of `halves`. Where `differ` is zero everywhere, any bit may come out. log2(places)
    rounds; two ANDs for each place but the lowest, less one for each round in which that has an upper
    neighbour: whether anything below it differs does not matter.
    """
    n, v = differ.data, chosen.data
    while (places := n.shape[1]) > 1:
        pairs, odd = places // 2, places % 2
        kept = _ands_of(places) - pairs
        left, right = (np.empty((len(n), pairs + kept, n.shape[2]), dtype=np.uint64) for _ in range(2))
        left[:, :pairs], left[:, pairs:] = n[:, :pairs], n[:, :kept]
        np.bitwise_xor(v[:, :pairs], v[:, pairs : 2 * pairs], out=right[:, :pairs])
        right[:, pairs:] = n[:, pairs : pairs + kept]
        product = (yield from protocol.mul(differ.like(left), differ.like(right))).data
        some, selected = (np.empty((len(n), pairs + odd, n.shape[2]), dtype=np.uint64) for _ in range(2))
        np.bitwise_xor(product[:, :pairs], v[:, pairs : 2 * pairs], out=selected[:, :pairs])
        np.bitwise_xor(product[:, pairs:], n[:, :kept], out=some[:, :kept])
        some[:, :kept] ^= n[:, pairs : pairs + kept]
        # The lowest of all is a placeholder that keeps the order; no product reads it.
        some[:, kept:], selected[:, pairs:] = n[:, -1:], v[:, 2 * pairs :]
        n, v = some, selected
    return differ.like(v[:, 0])


def select_tree_cost(protocol: Protocol, places: int, words: int) -> Cost:
    """Cost of `select_tree`."""
    cost = protocol.free()
    while places > 1:
        ands = protocol.spec((_ands_of(places), words), domain=BITS)
        cost = cost + protocol.cost("mul", ands, ands)
        places -= places // 2
    return cost


def and_tree(protocol: Protocol, planes: Share) -> Op[Share]:
    """AND of all planes of shape `(planes, words)`; log2(planes) rounds."""
    while planes.shape[0] > 1:
        pairs = planes.shape[0] // 2
        left, right = (planes.like(planes.data[:, start : 2 * pairs : 2]) for start in (0, 1))
        product = yield from protocol.mul(left, right)
        rest = planes.like(planes.data[:, 2 * pairs :])
        planes = _joined([product, rest])
    return planes.like(planes.data[:, 0])


def and_tree_cost(protocol: Protocol, planes: int, words: int) -> Cost:
    """Cost of `and_tree`."""
    cost = protocol.free()
    while planes > 1:
        pairs = planes // 2
        ands = protocol.spec((pairs, words), domain=BITS)
        cost = cost + protocol.cost("mul", ands, ands)
        planes -= pairs
    return cost


# -- leaves: four bits at a time -----------------------------------------------------------------------------
# One summand u is known to one party, the other, v, to the two others. For a nibble of each, the carry [u + v
# >= 16] = XOR_a [u = a] [v >= 16 - a] and the propagate bit [u + v = 15] = XOR_a [u = a] [v = 15 - a] are
# bilinear in the one-hot code of u and functions of v. So the owner of u shares 15 planes a nibble ([u = 0]
# follows), and one local product gives four levels of a carry tree at once.

NIBBLE = 4
ONE_HOT = 15
LANES = 256
"""Words of planes that are worked on at a time."""


@kernel(IN2, OUT2)
def nibble_one_hot(planes: Words, out: Words) -> None:
    """One-hot code [u = a], a = 1..15, of each nibble: planes `(4 g, m)` to `(15 g, m)`.

    A plane of the code at a time, over few words: as many results at once would not vectorise.
    """
    ones, none = ~np.uint64(0), np.uint64(0)
    low = np.empty((4, LANES), dtype=np.uint64)
    for start in range(0, planes.shape[1], LANES):
        stop = min(start + LANES, planes.shape[1])
        for g in range(planes.shape[0] // 4):
            b0, b1 = planes[4 * g, start:stop], planes[4 * g + 1, start:stop]
            b2, b3 = planes[4 * g + 2, start:stop], planes[4 * g + 3, start:stop]
            for value in range(4):
                row, flip0, flip1 = low[value], none if value & 1 else ones, none if value & 2 else ones
                for k in range(stop - start):
                    row[k] = (b0[k] ^ flip0) & (b1[k] ^ flip1)
            for value in range(1, 16):
                row, code = low[value & 3], out[15 * g + value - 1, start:stop]
                flip2, flip3 = none if value & 4 else ones, none if value & 8 else ones
                for k in range(stop - start):
                    code[k] = row[k] & (b2[k] ^ flip2) & (b3[k] ^ flip3)


@kernel(IN2, IN2, BOOLEAN, OUT2, OUT2)
def nibble_carry_leaves(hot: Words, planes: Words, first: bool, generate: Words, propagate: Words) -> None:
    """This party's summands of the carry and propagate bits of each nibble.

    `hot` `(15 g, m)` is a component of the one-hot code of u, `planes` `(4 g, m)` are the bits of v; results
    are `(g, m)`. What does not depend on u is added by the `first` of the two parties that know v.
    """
    flip = ~np.uint64(0) if first else np.uint64(0)
    for g in range(planes.shape[0] // 4):
        u, v, o = 15 * g, 4 * g, g
        for j in range(planes.shape[1]):
            b0, b1, b2, b3 = planes[v, j], planes[v + 1, j], planes[v + 2, j], planes[v + 3, j]
            l0, l1, l2, l3 = ~b1 & ~b0, ~b1 & b0, b1 & ~b0, b1 & b0
            h0, h1, h2, h3 = ~b3 & ~b2, ~b3 & b2, b3 & ~b2, b3 & b2
            u1, u2, u3 = hot[u, j], hot[u + 1, j], hot[u + 2, j]
            u4, u5, u6, u7 = hot[u + 3, j], hot[u + 4, j], hot[u + 5, j], hot[u + 6, j]
            u8, u9, u10, u11 = hot[u + 7, j], hot[u + 8, j], hot[u + 9, j], hot[u + 10, j]
            u12, u13, u14, u15 = hot[u + 11, j], hot[u + 12, j], hot[u + 13, j], hot[u + 14, j]
            # v >= 16 - a, for a = 1 to 15: the high half of v decides, or is equal and the low half decides.
            m1, m2, m3 = l3, b1, b1 | b0
            carry = (h3 & ((u1 & m1) ^ (u2 & m2) ^ (u3 & m3))) ^ (u4 & h3)
            carry ^= (u5 & (h3 ^ (h2 & m1))) ^ (u6 & (h3 ^ (h2 & m2))) ^ (u7 & (h3 ^ (h2 & m3))) ^ (u8 & b3)
            carry ^= (
                (u9 & (b3 ^ (h1 & m1))) ^ (u10 & (b3 ^ (h1 & m2))) ^ (u11 & (b3 ^ (h1 & m3))) ^ (u12 & ~h0)
            )
            carry ^= (u13 & (~h0 ^ (h0 & m1))) ^ (u14 & (~h0 ^ (h0 & m2))) ^ (u15 & (~h0 ^ (h0 & m3)))
            # v = 15 - a, for a = 1 to 15; and for a = 0, which is what the others leave.
            equal = h3 & ((u1 & l2) ^ (u2 & l1) ^ (u3 & l0))
            equal ^= h2 & ((u4 & l3) ^ (u5 & l2) ^ (u6 & l1) ^ (u7 & l0))
            equal ^= h1 & ((u8 & l3) ^ (u9 & l2) ^ (u10 & l1) ^ (u11 & l0))
            equal ^= h0 & ((u12 & l3) ^ (u13 & l2) ^ (u14 & l1) ^ (u15 & l0))
            u0 = flip ^ u1 ^ u2 ^ u3 ^ u4 ^ u5 ^ u6 ^ u7 ^ u8 ^ u9 ^ u10 ^ u11 ^ u12 ^ u13 ^ u14 ^ u15
            generate[o, j] = carry
            propagate[o, j] = equal ^ (u0 & h3 & l3)


@kernel(IN2, IN2, BOOLEAN, OUT2)
def nibble_equal_leaves(hot: Words, planes: Words, first: bool, equal: Words) -> None:
    """This party's summands of [u = v] of each nibble; arguments as in `nibble_carry_leaves`."""
    flip = ~np.uint64(0) if first else np.uint64(0)
    for g in range(planes.shape[0] // 4):
        u, v, o = 15 * g, 4 * g, g
        for j in range(planes.shape[1]):
            b0, b1, b2, b3 = planes[v, j], planes[v + 1, j], planes[v + 2, j], planes[v + 3, j]
            l0, l1, l2, l3 = ~b1 & ~b0, ~b1 & b0, b1 & ~b0, b1 & b0
            h0, h1, h2, h3 = ~b3 & ~b2, ~b3 & b2, b3 & ~b2, b3 & b2
            u1, u2, u3 = hot[u, j], hot[u + 1, j], hot[u + 2, j]
            u4, u5, u6, u7 = hot[u + 3, j], hot[u + 4, j], hot[u + 5, j], hot[u + 6, j]
            u8, u9, u10, u11 = hot[u + 7, j], hot[u + 8, j], hot[u + 9, j], hot[u + 10, j]
            u12, u13, u14, u15 = hot[u + 11, j], hot[u + 12, j], hot[u + 13, j], hot[u + 14, j]
            u0 = flip ^ u1 ^ u2 ^ u3 ^ u4 ^ u5 ^ u6 ^ u7 ^ u8 ^ u9 ^ u10 ^ u11 ^ u12 ^ u13 ^ u14 ^ u15
            same = h0 & ((u0 & l0) ^ (u1 & l1) ^ (u2 & l2) ^ (u3 & l3))
            same ^= h1 & ((u4 & l0) ^ (u5 & l1) ^ (u6 & l2) ^ (u7 & l3))
            same ^= h2 & ((u8 & l0) ^ (u9 & l1) ^ (u10 & l2) ^ (u11 & l3))
            same ^= h3 & ((u12 & l0) ^ (u13 & l1) ^ (u14 & l2) ^ (u15 & l3))
            equal[o, j] = same


# -- Ascon ---------------------------------------------------------------------------------------------------

ASCON_ROUNDS = 12
ROUND_CONSTANTS = tuple(0xF0 - 0x0F * i for i in range(ASCON_ROUNDS))
PRF_SHORT_IV = 0x804C8080
"""Bits of key, of message, 12 rounds and a mark, bits of the tag: in the byte order of SP 800-232."""
_FLIP = np.uint64(0xFFFFFFFFFFFFFFFF)


@kernel(OUT2, UINT64)
def _before_ands(state: Words, constant: np.uint64) -> None:
    """The linear layer before Ascon's S-box, in place on one component of the state.

    `state` is `(7, n)`, with rows 0 and 1 repeated, so that rows 1 to 5 and 2 to 6 are the factors of the
    S-box's ANDs without a copy. `constant` is the round constant for the component that carries public terms,
    zero for the others.
    """
    for i in range(state.shape[1]):
        state[0, i] ^= state[4, i]
        state[4, i] ^= state[3, i]
        state[2, i] ^= state[1, i] ^ constant
        state[5, i] = state[0, i]
        state[6, i] = state[1, i]


@kernel(OUT2, IN2, UINT64)
def _after_ands(state: Words, ands: Words, flip: np.uint64) -> None:
    """The rest of a round, in place on one component: `ands` holds `x_{i+1} & x_{i+2}` in row i.

    Ascon's `~x_{i+1} & x_{i+2}` is `x_{i+2} ^ (x_{i+1} & x_{i+2})`. `flip` is all ones for the component that
    carries public terms.
    """
    for i in range(state.shape[1]):
        x0 = state[0, i] ^ state[2, i] ^ ands[0, i]
        x1 = state[1, i] ^ state[3, i] ^ ands[1, i]
        x2 = state[2, i] ^ state[4, i] ^ ands[2, i]
        x3 = state[3, i] ^ state[5, i] ^ ands[3, i]
        x4 = state[4, i] ^ state[6, i] ^ ands[4, i]
        x1 ^= x0
        x0 ^= x4
        x3 ^= x2
        x2 ^= flip
        state[0, i] = (
            x0 ^ (x0 >> np.uint64(19) | x0 << np.uint64(45)) ^ (x0 >> np.uint64(28) | x0 << np.uint64(36))
        )
        state[1, i] = (
            x1 ^ (x1 >> np.uint64(61) | x1 << np.uint64(3)) ^ (x1 >> np.uint64(39) | x1 << np.uint64(25))
        )
        state[2, i] = (
            x2 ^ (x2 >> np.uint64(1) | x2 << np.uint64(63)) ^ (x2 >> np.uint64(6) | x2 << np.uint64(58))
        )
        state[3, i] = (
            x3 ^ (x3 >> np.uint64(10) | x3 << np.uint64(54)) ^ (x3 >> np.uint64(17) | x3 << np.uint64(47))
        )
        state[4, i] = (
            x4 ^ (x4 >> np.uint64(7) | x4 << np.uint64(57)) ^ (x4 >> np.uint64(41) | x4 << np.uint64(23))
        )


def ascon_prf_short_cost(protocol: Protocol, _key: Share, message: Share, **_: int) -> Cost:
    """Cost of `ascon_prf_short`."""
    ands = protocol.spec((5, message.shape[1]), domain=BITS)
    return functools.reduce(Cost.__add__, [protocol.cost("mul", ands, ands)] * ASCON_ROUNDS)


@declared(ascon_prf_short_cost)
def ascon_prf_short(protocol: Protocol, key: Share, message: Share, *, iv: int = PRF_SHORT_IV) -> Op[Share]:
    """Ascon-PRFshort of shared 128-bit messages `(2, n)` under a shared key `(2,)`: tags `(2, n)`.

    12 rounds of 5 word ANDs each; rotations and XOR are local. Words are the little-endian halves of the byte
    strings (Dobraunig, Eichlseder, Mendel, Schläffer, eprint 2021/1574; permutation and byte order of NIST SP
    800-232). With big-endian words and `iv=0x80804C80 << 32` it is the PRF of 2021, before the byte order was
    changed.
    """
    count = message.shape[1]
    # `ones` says which components carry public terms: constants and complements touch those alone.
    ones = protocol.constant(np.array([_FLIP]), domain=BITS).data[:, 0]
    state = message.like(np.empty((message.data.shape[0], 7, count), dtype=np.uint64))
    state.data[:, 0] = (ones & np.uint64(iv))[:, None]
    state.data[:, 1:3] = key.data[:, :, None]
    state.data[:, 3:5] = message.data
    for constant in ROUND_CONSTANTS:
        for component, one in zip(state.data, ones, strict=True):
            _before_ands(component, np.uint64(constant) & one)
        left, right = (state.like(state.data[:, start : start + 5]) for start in (1, 2))
        ands = yield from protocol.mul(left, right)
        for component, term, one in zip(state.data, ands.data, ones, strict=True):
            _after_ands(component, term, one)
    return message.like(state.data[:, 3:5] ^ key.data[:, :, None])
