"""Replicated sharing among four parties, one of which may lie: security with abort.

`x = x_0 + x_1 + x_2 + x_3` in Z_2^64, or XOR on packed words. Party i holds all components but x_i, so any
two parties have two components in common, and whatever a party needs to be told is known to two others: one
says it, the other vouches for it, and both are compared at once (see `vouching`). After Dalskov, Escudero and
Keller (USENIX Security 2021), but for their checks, which come too late to keep secrets (eprint 2026/234).

Everything rests on the *joint sharing* of a value v that parties g and h know, and i and j do not: component
j is F(K_j), which g, h and i draw from the key that all but j have; component i is v - F(K_j), which g tells
j and h vouches for; the other two are zero. 1 round, 1 word and a tag.

A product before its round is a sum of six summands, one for each pair of parties, and each party holds the
three of its own pairs: x_a y_b + x_b y_a is known to the two who are neither a nor b. What takes a dealer
elsewhere is a *pair gate* here (see `pair_gates`).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols import circuits, joint, kernels, pair_gates, quad_shuffle
from tercet.protocols.base import (
    Cost,
    Op,
    Product,
    Protocol,
    Shape,
    Share,
    align,
    declared,
    require_full,
    require_one_dimension,
)
from tercet.protocols.domains import BITS, WORD_BYTES, Z64, Domain, Words, packed_words
from tercet.protocols.fourier import Series
from tercet.protocols.joint import PARTIES, Components
from tercet.protocols.pair_gates import BitsToRing, Carries, Equalities, Fourier, PairGate, Truncation
from tercet.protocols.prg import KEY_BYTES, Stream
from tercet.protocols.replicated import digest
from tercet.protocols.vouching import Message, tell, tell_cost


class Rep4(Protocol):
    """Four parties, one of which may do anything: it is caught, or has no effect. Security with abort."""

    name: ClassVar[str] = "rep4"
    held: ClassVar[int] = 3
    held_of_product: ClassVar[int] = 3
    sizes: ClassVar[tuple[int, ...]] = (PARTIES,)
    shuffles_together: ClassVar[bool] = True
    truncates_down: ClassVar[bool] = True
    malicious: ClassVar[bool] = True
    group_keys: ClassVar[bool] = True

    def __init__(self, *, party: int, parties: int, keys: Mapping[int, bytes]) -> None:
        if parties != PARTIES or party not in range(PARTIES):
            raise ProtocolError(
                f"protocol {self.name!r} runs among {PARTIES} parties, not party {party} of {parties}"
            )
        super().__init__(party=party, parties=parties, keys=keys)

    @property
    def truncation_bias(self) -> float:
        """One unit of x: a number goes up with the chance of what is cut off and one unit more."""
        return 1.0

    # Word d - 1 of a share at party p is component p + d, word d - 1 of a product the summand of p and p + d;
    # numbers of parties and components are modulo 4.

    def after(self, d: int) -> int:
        """The party, or component, that comes d places after this party."""
        return (self.party + d) % PARTIES

    # -- values in and out -----------------------------------------------------------------------------------

    @classmethod
    def deal(cls, values: Words, *, domain: Domain, parties: int) -> list[list[Words]]:
        """Components 0 to 2 are 32-byte seeds, component 3 is explicit; each goes to its three holders."""
        seeds = [np.frombuffer(secrets.token_bytes(KEY_BYTES), dtype=np.uint64) for _ in range(parties - 1)]
        last = values.copy()
        for seed in seeds:
            domain.subtract(last, _seeded(seed).words(values.shape), out=last)
        components = [*seeds, last]
        return [[components[(party + d) % PARTIES] for d in (1, 2, 3)] for party in range(parties)]

    @classmethod
    def dealt_shapes(cls, shape: Shape, *, domain: Domain, party: int, parties: int) -> list[Shape]:
        """A seed is four words."""
        _ = domain, parties
        seed: Shape = (KEY_BYTES // WORD_BYTES,)
        return [shape if (party + d) % PARTIES == PARTIES - 1 else seed for d in (1, 2, 3)]

    def accept(self, parts: Sequence[Words], *, domain: Domain, shape: Shape, scale: int) -> Share:
        """Expand the seeds."""
        data = np.empty((3, *shape), dtype=np.uint64)
        for d, part in enumerate(parts, start=1):
            if self.after(d) == PARTIES - 1:
                data[d - 1] = part.reshape(shape)
            else:
                _seeded(part).fill(data[d - 1 : d])
        return Share(domain, data, scale)

    def held_alike(self, x: Share) -> Mapping[int, Words]:
        """With each party the two components that it holds too."""
        held = self.components(x.data)
        peers = [self.after(d) for d in (1, 2, 3)]
        return {peer: np.stack([held[c] for c in sorted(held) if c != peer]) for peer in peers}

    def export(self, x: Share) -> list[Words]:
        """Component i + 1 in full, and digests of the other two."""
        return [np.ascontiguousarray(x.data[0]), digest(x.data[1]), digest(x.data[2])]

    @classmethod
    def combine(cls, parts: Sequence[Sequence[Words]], *, domain: Domain, shape: Shape) -> Words:
        """Add the four components, each checked against the digests of its two other holders."""
        for component in range(PARTIES):
            party = (component - 1) % PARTIES
            told = digest(parts[party][0])
            for d in (2, 3):
                other = (component - d) % PARTIES
                if not np.array_equal(told, parts[other][d - 1]):
                    raise ProtocolError(
                        f"party {party} and party {other} disagree on component {component} of a result; one "
                        "of them is faulty, and the result was thrown away"
                    )
        return domain.total(part[0] for part in parts).reshape(shape)

    def _opened(self, shape: Shape) -> list[Message]:
        """Component i is told to party i by party i - 1, and the two others vouch for it."""
        return [
            Message((i - 1) % PARTIES, ((i - 2) % PARTIES, (i - 3) % PARTIES), i, shape)
            for i in range(PARTIES)
        ]

    @declared(lambda self, x: tell_cost(PARTIES, self._opened(x.shape)))
    def opening(self, x: Share) -> Op[Words]:
        """One round: each party is told the component it lacks, vouched for by both other holders."""
        known = [self._component(x, i) for i in range(PARTIES)]
        told = yield from tell(self, self._opened(x.shape), known)
        return x.domain.total([*x.data, *(words for words in told if words is not None)])

    def _component(self, x: Share, component: int) -> Words | None:
        d = (component - self.party) % PARTIES
        return x.data[d - 1] if d else None

    def constant(
        self, values: Words, *, domain: Domain = Z64, scale: int = 0, product: bool = False
    ) -> Share:
        """Component 0 is the value; of a product, the summand of parties 1 and 2."""
        data = np.zeros((3, *values.shape), dtype=np.uint64)
        if not product and self.party:
            data[-self.party % PARTIES - 1] = values
        elif product and self.party in (1, 2):
            data[0 if self.party == 1 else 2] = values
        return (Product if product else Share)(domain, data, scale)

    def random(self, shape: Shape, *, domain: Domain = Z64) -> Share:
        """Component j is F(K_j)."""
        tag = self.tag()
        drawn = [self.draw_without(self.after(d), tag, "random").words(shape) for d in (1, 2, 3)]
        return Share(domain, np.stack(drawn))

    # -- products --------------------------------------------------------------------------------------------

    # Component c's square is known to three parties; the summand of parties c + 1 and c + 2 has it.

    def to_product(self, x: Share) -> Product:
        """Component c goes into the summand of parties c + 1 and c + 2."""
        if isinstance(x, Product):
            return x
        return Product(x.domain, np.stack([x.data[2], np.zeros_like(x.data[0]), x.data[1]]), x.scale)

    def mul_local(self, x: Share, y: Share) -> Product:
        """For each own pair the cross terms of the two components that both hold, and at most one square."""
        a, b = _factors(x, y)
        z = np.empty(a.shape, dtype=np.uint64)
        kernels.quad_products(a, b, z, bits=x.domain is BITS)(0, z[0].size)
        return Product(x.domain, z, x.scale + y.scale)

    def matmul_local(self, x: Share, y: Share) -> Product:
        """As `mul_local`, of matrices."""
        require_full("a product", x, y)
        if x.size > y.size:
            z = _summands(kernels.ring_matmul, x.data, y.data, 1, 1)
            return Product(Z64, z, x.scale + y.scale)
        (x0, x1, x2), (y0, y1, y2) = x.data, y.data
        m, n = x.shape[0], y.shape[1]
        z = np.zeros((3 * m, n), dtype=np.uint64)
        kernels.add_matmul(np.concatenate([x2 + x1, x0]), y2, z[: 2 * m])
        kernels.add_matmul(np.concatenate([x2, x1]), y0, z[m:])
        kernels.add_matmul(x2, y1, z[:m])
        kernels.add_matmul(x1 + x0, y1, z[2 * m :])
        return Product(Z64, z.reshape(3, m, n), x.scale + y.scale)

    def dot_local(self, x: Share, y: Share) -> Product:
        """As `matmul_local`, contracting the rows of both."""
        require_full("a product", x, y)
        if x.size > y.size:
            z = _summands(kernels.ring_dot, x.data, y.data, 0, 1)
        else:
            z = _summands(lambda b, a: kernels.ring_dot(a, b), y.data, x.data, 0, 0)
        return Product(Z64, z, x.scale + y.scale)

    @declared(lambda self, x: joint.cost((joint.pairs(self.dealer), x.shape)))
    def reduce(self, x: Share) -> Op[Share]:
        """One round: the six summands are shared jointly, 6 words an element in all."""
        z = yield from joint.deal_sum(self, x.domain, joint.pairs(self.dealer), x.data.copy())
        return Share(x.domain, z, x.scale)

    @declared(
        lambda self, x, y: joint.cost((joint.pairs(self.dealer), np.broadcast_shapes(x.shape, y.shape)))
    )
    def mul(self, x: Share, y: Share) -> Op[Share]:
        """One round, 6 words an element in all; made and shared in blocks that stay in the cache."""
        (a, b), roles = _factors(x, y), joint.pairs(self.dealer)
        summands = np.empty(a.shape, dtype=np.uint64)
        make = kernels.quad_products(a, b, summands, bits=x.domain is BITS)
        z = yield from joint.deal_sum(self, x.domain, roles, summands, make)
        return Share(x.domain, z, x.scale + y.scale)

    def components(self, data: Words) -> Components:
        """The words of a share by the components that they are."""
        return {self.after(d): data[d - 1, ...] for d in (1, 2, 3)}

    # -- pair gates ------------------------------------------------------------------------------------------

    def _gate_cost(self, x: Share, count: int, gate: PairGate) -> Cost:
        reduced = self.cost("reduce", x) if isinstance(x, Product) else self.free()
        return reduced + pair_gates.gate_cost(self, count, gate)

    @declared(lambda self, x, bits: self._gate_cost(x, x.size, Truncation(bits)))
    def truncate(self, x: Share, bits: int) -> Op[Share]:
        """A pair gate: 2 rounds, 8 words an element in all; of a product, a round and 6 words more."""
        gate = Truncation(bits)
        x = (yield from self.reduce(x)) if isinstance(x, Product) else x
        y, _ = yield from pair_gates.run(self, x, x.size, gate)
        return Share(Z64, y.reshape(3, *x.shape), x.scale - bits)

    @declared(
        lambda self, x, series, **bits: self._gate_cost(x, x.size, Fourier(series, scale=x.scale, **bits))
    )
    def fourier(
        self, x: Share, series: Sequence[Series], *, dealt_bits: int, coefficient_bits: int
    ) -> Op[list[Share]]:
        """A pair gate: 2 rounds; of F functions of K harmonics, 2 K (1 + F) + 4 F words an element in all."""
        gate = Fourier(series, scale=x.scale, dealt_bits=dealt_bits, coefficient_bits=coefficient_bits)
        x = (yield from self.reduce(x)) if isinstance(x, Product) else x
        y, _ = yield from pair_gates.run(self, x, x.size, gate)
        scale = dealt_bits + coefficient_bits
        made = [Share(Z64, y[:, i].reshape(3, *x.shape), scale) for i in range(len(series))]
        return [self.add_public(one, gate.constant(i, x.shape)) for i, one in enumerate(made)]

    @declared(lambda self, x, count: self._gate_cost(x, count, BitsToRing()))
    def bits_to_ring(self, x: Share, count: int) -> Op[Share]:
        """A pair gate: 2 rounds, 6 words an element in all."""
        require_one_dimension(x, "bits_to_ring")
        if x.size != packed_words(count):
            raise ProtocolError(f"{count} packed bits are {packed_words(count)} words, not {x.size}")
        made, dealt = yield from pair_gates.run(self, x, count, BitsToRing())
        for component, words in self.components(made).items():
            np.add(words, dealt[component], out=words)
        return Share(Z64, made[:, 0])

    # -- comparisons -----------------------------------------------------------------------------------------

    @declared(lambda self, x, bits=64: self._negative_cost(x.size, bits))
    def is_negative(self, x: Share, bits: int = 64) -> Op[Share]:
        """Top bit of `bits`: a pair gate for the carries of nibbles, 2 rounds, and a tree of log2(bits / 4).

        The top bit of u + v is u's and v's top bits and the carry into them.
        """
        require_one_dimension(x, "is_negative")
        gate = Carries(bits)
        leaves, dealt = yield from pair_gates.run(self, x, x.size, gate)
        pair = leaves.reshape(3, 2, gate.groups, -1)
        carry = yield from circuits.carry_tree(self, *(Share(BITS, pair[:, i]) for i in range(2)))
        tops = np.stack([dealt[component][-1] for component in self.components(carry.data)])
        return Share(BITS, carry.data ^ tops)

    def _negative_cost(self, count: int, bits: int) -> Cost:
        gate = Carries(bits)
        tree = circuits.carry_tree_cost(self, gate.groups, packed_words(count))
        return pair_gates.gate_cost(self, count, gate) + tree

    @declared(lambda self, x: self._zero_cost(x.size))
    def is_zero(self, x: Share) -> Op[Share]:
        """[u = -v] by nibbles, in a pair gate, then an AND tree: 6 rounds."""
        require_one_dimension(x, "is_zero")
        equal, _ = yield from pair_gates.run(self, x, x.size, Equalities())
        return (yield from circuits.and_tree(self, Share(BITS, equal)))

    def _zero_cost(self, count: int) -> Cost:
        tree = circuits.and_tree_cost(self, Equalities.results, packed_words(count))
        return pair_gates.gate_cost(self, count, Equalities()) + tree

    # -- moving rows -----------------------------------------------------------------------------------------

    @declared(quad_shuffle.shuffle_cost)
    def shuffle(self, columns: Sequence[Share]) -> Op[list[Share]]:
        """Four hops, each by all but one party: 4 rounds, 9 words an element in all; see `quad_shuffle`."""
        return quad_shuffle.shuffle(self, columns)


def _seeded(seed: Words) -> Stream:
    """What a component is drawn from that an owner dealt as a seed."""
    return Stream(seed.tobytes(), b"input")


def _factors(x: Share, y: Share) -> list[Words]:
    """The data of two factors, broadcast; raises ProtocolError where a product would be meaningless."""
    require_full("a product", x, y)
    if x.domain is not y.domain:
        raise ProtocolError(f"a sharing in {x.domain} cannot be multiplied by one in {y.domain}; convert one")
    return list(np.broadcast_arrays(*align(x, y)))


def _summands(
    multiply: Callable[[Words, Words], Words], big: Words, small: Words, stack: int, split: int
) -> Words:
    """This party's summands of a bilinear product, as in `mul_local`, with each big component read once.

    Two components of the small factor, or sums of two, are stacked along one axis, and their products split
    along another.
    """
    (a0, a1, a2), (b0, b1, b2) = big, small

    def both(a: Words, *factors: Words) -> list[Words]:
        return np.split(multiply(a, np.concatenate(factors, stack)), 2, split)

    (after, across), (more, before) = both(a2, b2 + b1, b0), both(a1, b2, b1 + b0)
    rest = both(a0, b2, b1)
    return np.stack([after + more, across + rest[0], before + rest[1]])
