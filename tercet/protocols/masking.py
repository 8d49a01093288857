"""What three parties can do when each pair has a key: zero shares, resharing, masked openings.

Among three parties that hold replicated sharings (see `replicated`), key K_j is known to exactly the two
holders of component j, and `F(K_j, name)` is a stream that only they can draw. For a dealer D = party d, let
A = d+1 and B = d+2, modulo 3. A holds components d+1 and d+2, B holds d+2 and d; so `x_A = x_{d+1} + x_{d+2}`
and `x_B = x_d` is a sharing between A and B alone. D shares K_{d+1} with A and K_d with B: it can deal them
correlated randomness, and it learns nothing of what the two say to each other. Truncation, bit conversion,
Fourier functions and shuffles are all built on that view.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Cost, Op, Product, Protocol, Round, Shape, Share
from tercet.protocols.domains import WORD_BYTES, Z64, Domain, Words, packed_words
from tercet.protocols.gates import BLOCK, Gate
from tercet.protocols.prg import BLOCK_WORDS, Stream

DEALER, FIRST, SECOND = range(3)
"""The roles D, A and B of the dealer view."""


class Masking(Protocol):
    """The part of a three-party protocol that rests on pairwise keys alone."""

    def __init__(self, *, party: int, parties: int, keys: Mapping[int, bytes]) -> None:
        if parties != 3 or party not in range(3):
            raise ProtocolError(
                f"protocol {self.name!r} runs among 3 parties, not party {party} of {parties}"
            )
        super().__init__(party=party, parties=parties, keys=keys)
        self.next = (party + 1) % 3
        self.prev = (party - 1) % 3
        try:
            self._component_keys = {party: keys[self.prev], self.next: keys[self.next]}
        except KeyError as missing:
            raise ProtocolError(f"party {party} has no session key with party {missing}") from None

    # -- streams and zero shares -----------------------------------------------------------------------------

    def draw(self, component: int, tag: str, purpose: str) -> Stream:
        """F(K_component, tag); raises KeyError at the one party that must not know it."""
        return self.stream(self._component_keys[component % 3], tag, purpose)

    def zero_blocks(self, size: int) -> Iterator[tuple[slice, Words, Words]]:
        """A zero share, by blocks, in two buffers: party i adds the first, subtracts the second."""
        tag = self.tag()
        plus, minus = (self.draw(component, tag, "zero") for component in (self.party, self.next))
        buffer = np.empty((2, min(size, BLOCK_WORDS)), dtype=np.uint64)
        for start in range(0, size, BLOCK_WORDS):
            stop = min(start + BLOCK_WORDS, size)
            a, b = buffer[:, : stop - start]
            yield slice(start, stop), plus.fill(a), minus.fill(b)

    # -- the dealer view -------------------------------------------------------------------------------------

    def role(self, dealer: int) -> int:
        """DEALER, FIRST (A) or SECOND (B)."""
        return (self.party - dealer) % 3

    def _pair(self, dealer: int, role: int) -> tuple[int, int]:
        """For A or B: the other one, and the component whose key this one shares with the dealer."""
        return ((dealer + 2) % 3, dealer + 1) if role == FIRST else ((dealer + 1) % 3, dealer)

    def summand(self, x: Share, dealer: int) -> Words:
        """A's or B's summand of `x` in the dealer view, as a flat array that may alias `x`."""
        if isinstance(x, Product):
            part: Words = x.data[0]
        elif self.role(dealer) == FIRST:
            part = x.domain.add(x.data[0], x.data[1])
        else:
            part = x.data[1]
        return part.reshape(-1)

    def reshare(
        self,
        dealer: int,
        tag: str,
        shapes: Sequence[Shape],
        domains: Sequence[Domain],
        summands: Sequence[Words],
        *,
        out: Sequence[Words] | None = None,
    ) -> Op[list[Words]]:
        """Full sharings `(2, *shape)` of what A and B hold summands of: 1 round, a word an element from both.

        Component d+1 is F(K_{d+1}), component d is F(K_d), and component d+2 is what A and B find to be left;
        the dealer passes no summands, hears nothing and can draw its components. A's and B's summands are
        overwritten. The results are written to `out`, whose components are contiguous, or to new arrays.
        """
        role = self.role(dealer)
        full = list(out) if out is not None else [np.empty((2, *shape), dtype=np.uint64) for shape in shapes]
        if role == DEALER:
            for index in range(2):
                stream = self.draw(dealer + index, tag, "reshare")
                for part in full:
                    stream.fill(part[index])
            yield Round()
            return full
        other, mine = self._pair(dealer, role)
        kept, left = (0, 1) if role == FIRST else (1, 0)
        stream = self.draw(mine, tag, "reshare")
        for part, summand, domain in zip(full, summands, domains, strict=True):
            domain.subtract(summand, stream.fill(part[kept]), out=summand)
        got = yield Round(send={other: summands}, recv={other: shapes})
        for part, summand, theirs, domain in zip(full, summands, got[other], domains, strict=True):
            domain.add(summand, theirs, out=part[left])
        return full

    # -- masked openings -------------------------------------------------------------------------------------

    def masked_opening(self, x: Share, count: int, gate: Gate) -> Op[Words]:
        """Components `(2, results, count)`, in the ring, of a gate's functions of `x`: 2 rounds.

        The mask is `r = F(K_d) + F(K_{d+1})`. Round 1: A and B exchange their masked summands and so learn c
        = x + r; D sends B's half of what it deals. Where x is a product, D also sends both its own summand,
        under an extra mask made like r and counted into it. Round 2: A and B reshare.
        """
        if x.domain is not gate.domain:
            raise ProtocolError(f"a gate over {gate.domain} was given a sharing in {x.domain}")
        tag = self.tag()
        d, shapes = self.dealer, [(gate.results, count)]
        if self.role(d) == DEALER:
            yield self._deal(tag, x, count, gate)
            full = yield from self.reshare(d, tag, shapes, [Z64], [])
            return full[0]
        role = self.role(d)
        other, mine = self._pair(d, role)
        opened = (gate.opened(count),)
        masked = self.draw(mine, tag, "mask").words(opened)
        gate.domain.add(masked, self.summand(x, d), out=masked)
        recv: dict[int, list[Shape]] = {other: [opened]}
        if isinstance(x, Product):
            recv[d] = [opened]
        if role == SECOND:
            recv[d] = [*recv.get(d, []), (gate.dealt * count,)]
        got = yield Round(send={other: [masked]}, recv=recv)
        total = gate.domain.add(masked, got[other][0])
        if isinstance(x, Product):
            gate.domain.add(total, got[d][0], out=total)
        y = np.empty(shapes[0], dtype=np.uint64)
        source = self.draw(d + 1, tag, "deal") if role == FIRST else got[d][-1]
        for block, words, half in _halves(source, count, gate):
            # A slice of y is contiguous only if y has one row, so gates write to a block of their own.
            out = np.empty((gate.results, block.stop - block.start), dtype=np.uint64)
            gate.combine(total[words], half, out, first=role == FIRST)
            y[:, block] = out
        full = yield from self.reshare(d, tag, shapes, [Z64], [y])
        return full[0]

    def _deal(self, tag: str, x: Share, count: int, gate: Gate) -> Round:
        """The dealer's first round: the mask, what is dealt of it, and its own summand of a product."""
        d = self.dealer
        first, second = (d + 1) % 3, (d + 2) % 3
        mask = self._sum_of_both("mask", tag, gate, count)
        send: dict[int, list[Words]] = {second: []}
        if isinstance(x, Product):
            own = self._sum_of_both("extra", tag, gate, count)
            gate.domain.add(mask, own, out=mask)
            gate.domain.add(own, x.data[0].reshape(-1), out=own)
            send = {first: [own], second: [own]}
        dealt = np.empty(gate.dealt * count, dtype=np.uint64)
        self.draw(d + 1, tag, "deal").fill(dealt)
        for _, words, half in _halves(dealt, count, gate):
            gate.deal(mask[words], half)
        send[second].append(dealt)
        return Round(send=send)

    def _sum_of_both(self, purpose: str, tag: str, gate: Gate, count: int) -> Words:
        total, other = (
            self.draw(self.dealer + i, tag, purpose).words((gate.opened(count),)) for i in range(2)
        )
        gate.domain.add(total, other, out=total)
        return total

    def masked_cost(self, x: Share, count: int, *, opened: int, dealt: int, results: int) -> Cost:
        """Cost of `masked_opening`; for a product the dealer sends two words more for each one opened."""
        sent = [(opened + results * count) * WORD_BYTES] * 3
        sent[self.dealer] = (dealt * count + (2 * opened if isinstance(x, Product) else 0)) * WORD_BYTES
        return Cost(2, tuple(sent))


def _halves(source: Stream | Words, count: int, gate: Gate) -> Iterator[tuple[slice, slice, Words]]:
    """Blocks of elements, of the words that are opened for them, and of dealt halves `(dealt, b)`."""
    for start in range(0, count, BLOCK):
        stop = min(start + BLOCK, count)
        if isinstance(source, Stream):
            half = source.words((gate.dealt, stop - start))
        else:
            half = source[gate.dealt * start : gate.dealt * stop].reshape(gate.dealt, stop - start)
        words = slice(start, stop) if gate.domain is Z64 else slice(start // 64, packed_words(stop))
        yield slice(start, stop), words, half


__all__ = ["DEALER", "FIRST", "SECOND", "Masking"]
