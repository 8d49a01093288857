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

from tercet.compiled import BOOLEAN, UINT64, inline, kernel
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


@inline
def _xor_of_rotated(word: np.uint64, first: int, second: int) -> np.uint64:
    """A word and itself rotated right by so many bits, and by so many."""
    once = word >> np.uint64(first) | word << np.uint64(64 - first)
    return word ^ once ^ (word >> np.uint64(second) | word << np.uint64(64 - second))


@kernel(OUT2, IN2, UINT64, UINT64)
def _between_ands(state: Words, ands: Words, flip: np.uint64, constant: np.uint64) -> None:
    """What is linear from the ANDs of one round to those of the next, in place on one component of the state.

    `ands` holds `x_{i+1} & x_{i+2}` in row i; Ascon's `~x_{i+1} & x_{i+2}` is `x_{i+2}` and that. `state` is
    `(7, n)`, with rows 0 and 1 repeated, so that rows 1 to 5 and 2 to 6 are the factors of the S-box's ANDs
    without a copy. For the component that carries public terms `flip` is all ones and `constant` that of the
    next round; for the others both are zero.
    """
    for i in range(state.shape[1]):
        x0 = state[0, i] ^ state[2, i] ^ ands[0, i]
        x1 = state[1, i] ^ state[3, i] ^ ands[1, i]
        x2 = state[2, i] ^ state[4, i] ^ ands[2, i]
        x3 = state[3, i] ^ state[5, i] ^ ands[3, i]
        x4 = state[4, i] ^ state[6, i] ^ ands[4, i]
        x1 = _xor_of_rotated(x1 ^ x0, 61, 39)
        x3 = _xor_of_rotated(x3 ^ x2, 10, 17)
        x0 = _xor_of_rotated(x0 ^ x4, 19, 28)
        x2 = _xor_of_rotated(x2 ^ flip, 1, 6)
        x4 = _xor_of_rotated(x4, 7, 41)
        x0 ^= x4
        state[0, i], state[5, i] = x0, x0
        state[1, i], state[6, i] = x1, x1
        state[2, i] = x2 ^ x1 ^ constant
        state[3, i] = x3
        state[4, i] = x4 ^ x3


def _first_ands(protocol: Protocol, message: Share, x1: Words, x2: Words, iv: np.uint64) -> Op[Share]:
    """The ANDs of the first round, `(5, n)`: 3 words of products for each message.

    Row 0 of the state is public there but for the message, and rows `x1` and `x2`, `(components, 1)`, are the
    key's. With messages `m0`, `m1`, products are `x2 & m0`, `m0 & m1`, `x1 & m1`, and once `x1 & x2`.
    """
    count = message.shape[1]
    m0, m1 = message.data.swapaxes(0, 1)

    def beside(*parts: Words) -> Share:
        widths = (count, count, count, 1)
        rows = [np.broadcast_to(part, (len(part), width)) for part, width in zip(parts, widths, strict=True)]
        return message.like(np.concatenate(rows, axis=1))

    products = yield from protocol.mul(beside(x2, m0, x1, x1), beside(m0, m1, m1, x2))
    with_x2, with_each_other, with_x1 = (products.data[:, k * count :][:, :count] for k in range(3))
    ands = message.like(np.empty((len(m0), 5, count), dtype=np.uint64))
    ands.data[:, 0] = products.data[:, 3 * count :]
    ands.data[:, 1] = with_x2
    ands.data[:, 2] = m0 ^ with_each_other  # m0 & (m0 ^ m1)
    ands.data[:, 3] = ((m0 ^ m1) & iv) ^ m1 ^ with_each_other  # (m0 ^ m1) & (iv ^ m1)
    ands.data[:, 4] = (x1 & iv) ^ with_x1  # (iv ^ m1) & x1
    return ands


def _last_words(protocol: Protocol, state: Share) -> Op[Share]:
    """Words 3 and 4 `(2, n)` after the last round, of a `state` before its ANDs: 2 words of products.

    Of the ANDs of rows 2 and 3 only their sum counts, `x4 & (x3 ^ x0)`.
    """
    x0, x1, x2, x3, x4 = (state.data[:, row] for row in range(5))
    both = x3 ^ x0
    left, right = (state.like(np.stack(rows, axis=1)) for rows in ((x4, x0), (both, x1)))
    products = yield from protocol.mul(left, right)
    words = np.stack([both ^ x2 ^ x4, x4 ^ x1], axis=1) ^ products.data
    for component in words:
        _rotate_last(component)
    return state.like(words)


@kernel(OUT2)
def _rotate_last(words: Words) -> None:
    for i in range(words.shape[1]):
        words[0, i] = _xor_of_rotated(words[0, i], 10, 17)
        words[1, i] = _xor_of_rotated(words[1, i], 7, 41)


def ascon_prf_short_cost(protocol: Protocol, _key: Share, message: Share, **_: int) -> Cost:
    """Cost of `ascon_prf_short`."""
    count = message.shape[1]
    shapes = [(3 * count + 1,), *[(5, count)] * (ASCON_ROUNDS - 2), (2, count)]
    factors = [protocol.spec(shape, domain=BITS) for shape in shapes]
    return functools.reduce(Cost.__add__, [protocol.cost("mul", ands, ands) for ands in factors])


@declared(ascon_prf_short_cost)
def ascon_prf_short(protocol: Protocol, key: Share, message: Share, *, iv: int = PRF_SHORT_IV) -> Op[Share]:
    """Ascon-PRFshort of shared 128-bit messages `(2, n)` under a shared key `(2,)`: tags `(2, n)`.

    12 rounds of word ANDs: 3 for each message in the first, since row 0 of the state is public there and rows
    1 and 2 are the key, 2 in the last, of which rows 3 and 4 are the tag, and 5 in the others; rotations and
    XOR are local. Words are the little-endian halves of the byte strings (Dobraunig, Eichlseder, Mendel,
    Schläffer, eprint 2021/1574; permutation and byte order of NIST SP 800-232). With big-endian words and
    `iv=0x80804C80 << 32` it is the PRF of 2021, before the byte order was changed.
    """
    # `ones` says which components carry public terms: constants and complements touch those alone.
    ones = protocol.constant(np.array([_FLIP]), domain=BITS).data[:, 0]
    first, *others = (np.uint64(constant) & ones for constant in ROUND_CONSTANTS)
    (k0, k1), (m0, m1) = key.data[:, :, None].swapaxes(0, 1), message.data.swapaxes(0, 1)
    x0 = (ones & np.uint64(iv))[:, None] ^ m1
    x1, x2 = k0, k0 ^ k1 ^ first[:, None]
    rows = (x0, x1, x2, m0, m0 ^ m1, x0, x1)
    state = message.like(np.empty((len(message.data), len(rows), message.shape[1]), dtype=np.uint64))
    for row, words in enumerate(rows):
        state.data[:, row] = words
    ands = yield from _first_ands(protocol, message, x1, x2, np.uint64(iv))
    for number, constants in enumerate(others, start=2):
        for component, products, flip, constant in zip(state.data, ands.data, ones, constants, strict=True):
            _between_ands(component, products, flip, constant)
        if number < ASCON_ROUNDS:
            left, right = (state.like(state.data[:, start : start + 5]) for start in (1, 2))
            ands = yield from protocol.mul(left, right)
    tags = yield from _last_words(protocol, state)
    return message.like(tags.data ^ key.data[:, :, None])
