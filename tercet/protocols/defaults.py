"""What any protocol can do that has products, shared random bits and openings: `Protocol`'s defaults.

A protocol that gives the core of `Protocol` runs every plan with what is here. Nothing is assumed of who
knows what: masks are random words that no party knows, with their bits shared too, so a value plus a mask can
be opened to all (Damgård, Fitzi, Kiltz, Nielsen, Toft 2006). That costs 64 conversions of bits for each
element, which is why fast protocols override these functions, most of all where a dealer may know the mask.

Each function has its declared cost beside it, computed from the costs of the core.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tercet.errors import ProtocolError
from tercet.protocols import bitplanes, circuits
from tercet.protocols.domains import BITS, WORD_BITS, WORD_BYTES, Z64, Words, packed_words
from tercet.protocols.prg import KEY_BYTES, keyed_digest
from tercet.protocols.shares import (
    Cost,
    Op,
    Product,
    Round,
    Share,
    gather,
    require_full,
    require_one_dimension,
)

if TYPE_CHECKING:
    from tercet.protocols.base import Protocol

KEY_BITS = 62
"""Bits of the keys that a shuffle sorts by: two of n rows tie with a chance below n^2 / 2^63."""

# -- values out ----------------------------------------------------------------------------------------------


def reveal(protocol: Protocol, x: Share) -> Op[list[Words]]:
    """What the party exports, without a check. No rounds."""
    require_full("a reveal", x)
    yield from ()
    return protocol.export(x)


def reveal_cost(protocol: Protocol, _: Share) -> Cost:
    """Cost of `reveal`."""
    return protocol.free()


def compare(protocol: Protocol, known: Mapping[int, Words]) -> Op[None]:
    """A digest to each peer, under a key for this pair, direction and comparison alone."""
    tag = protocol.tag()

    def digest(sender: int, peer: int) -> Words:
        key = protocol.stream(protocol.keys[peer], tag, f"compare {sender}").words((KEY_BYTES // WORD_BYTES,))
        return keyed_digest(key.tobytes(), known[peer])

    # Each direction has its own key, so that a peer cannot send back what it was sent.
    sent = {peer: [digest(protocol.party, peer)] for peer in known}
    due = {peer: digest(peer, peer) for peer in known}
    got = yield Round(sent, {peer: [words.shape] for peer, words in due.items()})
    for peer, words in due.items():
        if not np.array_equal(got[peer][0], words):
            raise ProtocolError(
                f"party {protocol.party} and party {peer} hold different words where they must hold the same "
                "ones; one of them is faulty, and the run was given up"
            )


def compare_cost(protocol: Protocol, known: Mapping[int, Words]) -> Cost:
    """Cost of `compare`."""
    return Cost(1, (len(known) * KEY_BYTES,) * protocol.parties)


# -- products ------------------------------------------------------------------------------------------------


def matmul_local(protocol: Protocol, x: Share, y: Share) -> Product:
    """`(m, k) @ (k, n)` as a sum of k element-wise products. Local."""
    require_full("a product", x, y)
    zeros = np.zeros((x.shape[0], y.shape[1]), dtype=np.uint64)
    total: Share = protocol.constant(zeros, domain=Z64, scale=x.scale + y.scale, product=True)
    for column in range(x.shape[1]):
        term = protocol.mul_local(
            x.like(x.data[:, :, column : column + 1]), y.like(y.data[:, column : column + 1])
        )
        total = protocol.add(total, term)
    return protocol.to_product(total)


def dot_local(protocol: Protocol, x: Share, y: Share) -> Product:
    """`(d, n), (e, n) -> (d, e)`, a row of the result at a time. Local."""
    require_full("a product", x, y)
    zeros = np.zeros((x.shape[0], y.shape[0]), dtype=np.uint64)
    total = protocol.constant(zeros, domain=Z64, scale=x.scale + y.scale, product=True)
    for row in range(x.shape[0]):
        term = protocol.mul_local(x.like(x.data[:, row : row + 1]), y)
        total.data[:, row] = protocol.sum(term).data
    return protocol.to_product(total)


def mul_cost(protocol: Protocol, x: Share, y: Share) -> Cost:
    """Cost of `Protocol.mul` where it is a product and its round."""
    shape = np.broadcast_shapes(x.shape, y.shape)
    return protocol.cost("reduce", protocol.spec(shape, domain=x.domain, product=True))


# -- masks whose bits are shared -----------------------------------------------------------------------------


def fresh_planes(protocol: Protocol, bits: int, count: int) -> Op[tuple[Share, Share]]:
    """Random bits that nobody knows, as packed planes `(bits, words)` and in the ring, `(bits, count)`."""
    planes = yield from protocol.fresh((bits, packed_words(count)), domain=BITS)
    ring = yield from planes_to_ring(protocol, planes, count)
    return planes, ring


def fresh_planes_cost(protocol: Protocol, bits: int, count: int) -> Cost:
    """Cost of `fresh_planes`."""
    drawn = protocol.cost("fresh", (bits, packed_words(count)), domain=BITS)
    return drawn + planes_to_ring_cost(protocol, bits, count)


def planes_to_ring(protocol: Protocol, planes: Share, count: int) -> Op[Share]:
    """The bits of planes as zeros and ones in the ring, `(bits, count)`: one `bits_to_ring`."""
    bits, words = planes.shape
    flat = planes.map(lambda component: component.reshape(-1))
    ring = yield from protocol.bits_to_ring(flat, bits * words * WORD_BITS)
    return ring.map(lambda component: component.reshape(bits, words * WORD_BITS)[:, :count])


def planes_to_ring_cost(protocol: Protocol, bits: int, count: int) -> Cost:
    """Cost of `planes_to_ring`."""
    words = bits * packed_words(count)
    return protocol.cost("bits_to_ring", protocol.spec((words,), domain=BITS), words * WORD_BITS)


def weigh(protocol: Protocol, bits: Share) -> Share:
    """`sum_i 2^i b_i` of ring bits `(bits, count)`. Local."""
    powers = np.uint64(1) << np.arange(bits.shape[0], dtype=np.uint64)
    return protocol.sum(protocol.mul_public(bits, powers[:, None]), axis=0)


def _masked(protocol: Protocol, x: Share, mask: Share) -> Op[Words]:
    """A one-dimensional value plus a mask, in the open; the mask takes the value's scale."""
    return protocol.open_masked(x, mask.like(mask.data, scale=x.scale))


def _masked_cost(protocol: Protocol, count: int) -> Cost:
    return protocol.cost("opening", protocol.spec((count,)))


# -- truncation ----------------------------------------------------------------------------------------------


def truncate(protocol: Protocol, x: Share, bits: int) -> Op[Share]:
    """`x / 2**bits` for |x| < 2^62, within one unit in the last place (Dalskov, Escudero, Keller 2020).

    With c = x + 2^62 + r open, `c >> f` less `r >> f` is right but where the sum wraps, which is where the
    top bit of r is one and that of c is zero.
    """
    if not 1 <= bits <= WORD_BITS - 2:
        raise ProtocolError(f"a truncation by {bits} bits: it must be by 1 to 62")
    if isinstance(x, Product):
        x = yield from protocol.reduce(x)
    count, shape = x.size, x.shape
    flat = x.map(lambda component: component.reshape(-1))
    _, r = yield from fresh_planes(protocol, WORD_BITS, count)
    opened = yield from _masked(protocol, flat, weigh(protocol, r))
    c = opened + np.uint64(1 << 62)
    high = weigh(protocol, r.like(r.data[:, bits:]))
    wrapped = (np.uint64(1) - (c >> np.uint64(63))) << np.uint64(WORD_BITS - bits)
    top = protocol.mul_public(r.like(r.data[:, -1]), wrapped)
    public = (c >> np.uint64(bits)) - np.uint64(1 << (62 - bits))
    y = protocol.add_public(protocol.subtract(top, high), public)
    return y.like(y.data.reshape(y.data.shape[0], *shape), scale=x.scale - bits)


def truncate_cost(protocol: Protocol, x: Share, *_: int) -> Cost:
    """Cost of `truncate`."""
    reduced = protocol.cost("reduce", x) if isinstance(x, Product) else protocol.free()
    return reduced + fresh_planes_cost(protocol, WORD_BITS, x.size) + _masked_cost(protocol, x.size)


# -- rounding that depends on the value alone ----------------------------------------------------------------


def nearest(protocol: Protocol, x: Share, bits: int) -> Op[Share]:
    """`x / 2**bits` to the nearest, halves up: a truncation, and comparisons that tell by how much it is off.

    With x, half a unit of the result added, in units of the result: if the truncation is j too large, what is
    left of x is below 1 - j, and if it is j too small, it is j or more. So the truncation less the number of
    `left < 0, -1, ...`, plus the number of `left >= 1, 2, ...`, is the floor, whatever the masks were.
    """
    if isinstance(x, Product):
        x = yield from protocol.reduce(x)
    flat, count = x.map(lambda component: component.reshape(-1)), x.size
    half = np.full(count, 1 << (bits - 1), dtype=np.uint64)
    raised = protocol.add_public(flat, half)
    low, high = _off(protocol)
    cut = yield from protocol.truncate(raised if protocol.truncates_down else flat, bits)
    unit = np.uint64(1 << bits)
    left = protocol.subtract(raised, protocol.mul_public(cut, np.asarray(unit), scale=bits))
    ends = [*range(high), *range(low, 0)]
    moved = np.array([end << bits for end in ends], dtype=np.int64).view(np.uint64)
    probes = protocol.add_public(left.map(lambda part: np.tile(part, len(ends))), np.repeat(moved, count))
    below = yield from protocol.is_negative(probes, _probe_bits(protocol, bits))
    flags = yield from protocol.bits_to_ring(below, len(ends) * count)
    flags = flags.map(lambda part: part.reshape(len(ends), count))
    excess = protocol.sum(flags, axis=0)
    exact = protocol.subtract(cut, excess.like(excess.data, scale=cut.scale))
    if low:
        exact = protocol.add_public(exact, np.full(count, -low, dtype=np.uint64))
    return exact.map(lambda part: part.reshape(x.shape))


def _off(protocol: Protocol) -> tuple[int, int]:
    """The least and the most units by which the truncation inside `nearest` may be off."""
    return (0, 1) if protocol.truncates_down else (-protocol.truncation_error, protocol.truncation_error)


def _probe_bits(protocol: Protocol, bits: int) -> int:
    """Bits of what `nearest` compares with zero: at most `high - low` units of the result."""
    low, high = _off(protocol)
    return min(bits + 1 + (high - low).bit_length(), WORD_BITS)


def nearest_cost(protocol: Protocol, x: Share, bits: int) -> Cost:
    """Cost of `nearest`."""
    low, high = _off(protocol)
    reduced = protocol.cost("reduce", x) if isinstance(x, Product) else protocol.free()
    probes = protocol.spec(((high - low) * x.size,))
    packed = protocol.spec((packed_words(probes.size),), domain=BITS)
    return (
        reduced
        + protocol.cost("truncate", protocol.spec((x.size,), scale=x.scale), bits)
        + protocol.cost("is_negative", probes, _probe_bits(protocol, bits))
        + protocol.cost("bits_to_ring", packed, probes.size)
    )


# -- comparisons ---------------------------------------------------------------------------------------------


def is_negative(protocol: Protocol, x: Share, bits: int = WORD_BITS) -> Op[Share]:
    """Bit `bits - 1` of x = c - r, where c is open and the bits of r are shared.

    c's bit, less r's, less what the lower bits borrow: r_i and not c_i begins a borrow, equal bits hand one
    on.
    """
    require_one_dimension(x, "is_negative")
    if not 2 <= bits <= WORD_BITS:
        raise ProtocolError(f"a comparison over {bits} bits: it must be over 2 to 64")
    r, ring = yield from fresh_planes(protocol, WORD_BITS, x.size)
    opened = yield from _masked(protocol, x, weigh(protocol, ring))
    not_c = ~bitplanes.to_planes(opened, bits)
    low = r.like(r.data[:, : bits - 1])
    begins, passes = protocol.mul_public(low, not_c[:-1]), protocol.add_public(low, not_c[:-1])
    borrow = yield from circuits.carry_tree(protocol, begins, passes)
    top = protocol.add_public(r.like(r.data[:, bits - 1]), ~not_c[-1])
    return protocol.add(top, borrow)


def is_negative_cost(protocol: Protocol, x: Share, bits: int = WORD_BITS) -> Cost:
    """Cost of `is_negative`."""
    return (
        fresh_planes_cost(protocol, WORD_BITS, x.size)
        + _masked_cost(protocol, x.size)
        + circuits.carry_tree_cost(protocol, bits - 1, packed_words(x.size))
    )


def is_zero(protocol: Protocol, x: Share) -> Op[Share]:
    """Whether x = c - r is zero: where all bits of c and r agree."""
    require_one_dimension(x, "is_zero")
    r, ring = yield from fresh_planes(protocol, WORD_BITS, x.size)
    opened = yield from _masked(protocol, x, weigh(protocol, ring))
    alike = protocol.add_public(r, ~bitplanes.to_planes(opened))
    return (yield from circuits.and_tree(protocol, alike))


def is_zero_cost(protocol: Protocol, x: Share) -> Cost:
    """Cost of `is_zero`."""
    return (
        fresh_planes_cost(protocol, WORD_BITS, x.size)
        + _masked_cost(protocol, x.size)
        + circuits.and_tree_cost(protocol, WORD_BITS, packed_words(x.size))
    )


# -- moving rows ---------------------------------------------------------------------------------------------


def merge_exchange(rows: int) -> Iterator[npt.NDArray[np.int64]]:
    """Batcher's sorting network: for each stage the lower place of every comparator, and their distance.

    As in Knuth, The Art of Computer Programming 5.2.2 M; yields arrays `(2, comparators)` of both places.
    """
    top = 1 << max((rows - 1).bit_length() - 1, 0)
    p = top if rows > 1 else 0
    while p > 0:
        q, r, d = top, 0, p
        while d > 0:
            i = np.arange(max(rows - d, 0))
            low = i[(i & p) == r]
            if low.size:
                yield np.stack([low, low + d])
            d, q, r = (q - p, q >> 1, p) if q != p else (0, q, r)
        p >>= 1


def shuffle(protocol: Protocol, columns: Sequence[Share]) -> Op[list[Share]]:
    """Sort all rows by random secret keys in a sorting network: a permutation that nobody knows.

    About log2(rows)^2 / 2 stages, each a comparison, a conversion of its bits and a product.
    """
    require_full("a shuffle", *columns)
    rows = columns[0].shape[-1]
    if any(column.shape[-1] != rows for column in columns):
        raise ProtocolError(f"columns of {[c.shape[-1] for c in columns]} rows cannot be shuffled together")
    _, bits = yield from fresh_planes(protocol, KEY_BITS, rows)
    keys = weigh(protocol, bits)
    moving = [Share(Z64, keys.data[:, None]), *(_flat(column) for column in columns)]
    moving = [share.like(share.data.copy()) for share in moving]
    for low, high in merge_exchange(rows):
        key = moving[0].like(moving[0].data[:, 0])
        order = protocol.subtract(key.like(key.data[:, high]), key.like(key.data[:, low]))
        swap = yield from protocol.is_negative(order, KEY_BITS + 1)
        chosen = yield from protocol.bits_to_ring(swap, low.size)
        masks = swap.map(lambda c, n=low.size: np.negative(bitplanes.unpack_bits(c, n).astype(np.uint64)))  # type: ignore[misc]
        gaps = [protocol.subtract(s.like(s.data[..., high]), s.like(s.data[..., low])) for s in moving]
        factors = [masks if gap.domain is BITS else chosen for gap in gaps]
        steps = yield from gather(*(protocol.mul(gap, by) for gap, by in zip(gaps, factors, strict=True)))
        for share, step in zip(moving, steps, strict=True):
            first, second = (share.like(share.data[..., side]) for side in (low, high))
            share.data[..., low] = protocol.add(first, step).data
            share.data[..., high] = protocol.subtract(second, step).data
    settled = zip(columns, moving[1:], strict=True)
    return [column.like(share.data.reshape(column.data.shape)) for column, share in settled]


def _flat(column: Share) -> Share:
    """A column as `(places, rows)`, at scale 0."""
    places = math.prod(column.shape[:-1])
    return Share(column.domain, column.data.reshape(column.data.shape[0], places, column.shape[-1]))


def shuffle_cost(protocol: Protocol, columns: Sequence[Share]) -> Cost:
    """Cost of `shuffle`."""
    rows = columns[0].shape[-1]
    cost = fresh_planes_cost(protocol, KEY_BITS, rows)
    places = [(Z64, 1), *((column.domain, math.prod(column.shape[:-1])) for column in columns)]
    for low, _ in merge_exchange(rows):
        n = low.size
        one = protocol.spec((n,))
        packed = protocol.spec((packed_words(n),), domain=BITS)
        products = [
            protocol.cost("mul", protocol.spec((k, n), domain=d), protocol.spec((n,), domain=d))
            for d, k in places
        ]
        cost = (
            cost
            + protocol.cost("is_negative", one, KEY_BITS + 1)
            + protocol.cost("bits_to_ring", packed, n)
            + functools.reduce(Cost.__or__, products)
        )
    return cost
