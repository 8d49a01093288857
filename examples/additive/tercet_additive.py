"""Three-party additive sharing with a dealer: an example of a protocol in one file.

`x = a + b + m`. Party 0, the dealer, knows the masks a and b and nothing of m; party 1 knows b and m, party 2
knows m and a (Chaudhari, Choudhury, Patra, Suresh 2019). So b at party 1 and m + a at party 2 are an additive
sharing, and the dealer, who does not hear what these two say to each other, prepares what they need. A mask
comes from the key that the dealer has with its other holder, so it costs no message. One party may be
corrupt, and follows the protocol.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Cost, Op, Product, Protocol, Round, Shape, Share, align, declared
from tercet.protocols.domains import WORD_BYTES, Z64, Domain, Words, packed_words
from tercet.protocols.fourier import Series, union
from tercet.protocols.gates import BitsToRing, Fourier, Gate, Truncation
from tercet.protocols.replicated import DIGEST_WORDS, digest

DEALER = 0


def sent(rounds: int, *, dealer: int, others: int) -> Cost:
    """The cost of so many words sent by the dealer, and by each of the others."""
    return Cost(rounds, (dealer * WORD_BYTES, others * WORD_BYTES, others * WORD_BYTES))


def gate_cost(x: Share, count: int, *, opened: int, dealt: int, results: int) -> Cost:
    """The cost of `Additive.gate`; of a product, the dealer sends its own summand to both others."""
    own = 2 * opened if isinstance(x, Product) else 0
    return sent(2, dealer=dealt * count + own, others=opened + results * count)


class Additive(Protocol):
    """Three parties, one of them a dealer of masks; one corrupt, semi-honest. An example."""

    name: ClassVar[str] = "additive"
    held: ClassVar[int] = 2
    sizes: ClassVar[tuple[int, ...]] = (3,)

    # Words go round: the second word of a party is the first one of the next.

    @classmethod
    def deal(cls, values: Words, *, domain: Domain, parties: int) -> list[list[Words]]:
        """Two random masks, and what they leave; an array of the value's shape for each word held."""
        _ = parties
        a, b = np.frombuffer(secrets.token_bytes(2 * values.nbytes), np.uint64).reshape(2, *values.shape)
        m = domain.subtract(domain.subtract(values, a), b)
        return [[a, b], [b, m], [m, a]]

    @classmethod
    def combine(cls, parts: Sequence[Sequence[Words]], *, domain: Domain, shape: Shape) -> Words:
        """The sum of the three words, each of which its two holders have to agree on."""
        if not all(np.array_equal(parts[p][1], parts[(p + 1) % 3][0]) for p in range(3)):
            raise ProtocolError("two parties disagree on a word of a result, which was thrown away")
        a, b, m = (part[0] for part in parts)
        return np.asarray(domain.add(domain.add(a, b), m)).reshape(shape)

    @declared(lambda _, x: sent(1, dealer=x.size + DIGEST_WORDS, others=x.size + DIGEST_WORDS))
    def opening(self, x: Share) -> Op[Words]:
        """One round: of the two holders of a word, one sends it to the party that lacks it, one a digest."""
        after, before = (self.party + 1) % 3, (self.party - 1) % 3
        got = yield Round(
            send={after: [x.data[0]], before: [digest(x.data[1])]},
            recv={before: [x.shape], after: [(DIGEST_WORDS,)]},
        )
        lacked = got[before][0]
        if not np.array_equal(digest(lacked), got[after][0]):
            raise ProtocolError(f"parties {before} and {after} disagree on a word of an opened value")
        return np.asarray(x.domain.add(x.domain.add(x.data[0], x.data[1]), lacked))

    def constant(
        self, values: Words, *, domain: Domain = Z64, scale: int = 0, product: bool = False
    ) -> Share:
        """The value is m, and masks are zero."""
        nothing = np.zeros_like(values)
        words = [[nothing, nothing], [nothing, values], [values, nothing]][self.party]
        return Product(domain, words[0][None], scale) if product else Share(domain, np.stack(words), scale)

    def draw(self, peer: int, tag: str, purpose: str, shape: Shape) -> Words:
        """Random words that this party and a peer know."""
        return self.stream(self.keys[peer], tag, purpose).words(shape)

    def random(self, shape: Shape, *, domain: Domain = Z64) -> Share:
        """Every word from the key of its two holders."""
        tag = self.tag()
        words = [self.draw((self.party + turn) % 3, tag, "random", shape) for turn in (-1, 1)]
        return Share(domain, np.stack(words))

    def mul_local(self, x: Share, y: Share) -> Product:
        """Of the nine products of words, the three that start at this party's first word."""
        (x0, x1), (y0, y1) = align(x, y)
        z = x.domain.add(x.domain.multiply(x0, x.domain.add(y0, y1)), x.domain.multiply(x1, y0))
        return Product(x.domain, z[None], x.scale + y.scale)

    @declared(lambda _, x: sent(1, dealer=2 * x.size, others=x.size))
    def reduce(self, x: Share) -> Op[Share]:
        """One round: new masks, and m from what all three hold; the dealer hides its summand from each."""
        tag, z, domain = self.tag(), x.data[0], x.domain
        if self.party == DEALER:
            hidden = {p: domain.subtract(z, self.draw(3 - p, tag, "hide", x.shape)) for p in (1, 2)}
            yield Round(send={p: [words] for p, words in hidden.items()})
            return self.masks(tag, domain, x.shape, x.scale)
        hide = self.draw(DEALER, tag, "hide", x.shape)
        return (yield from self.settle(tag, domain, z, x.scale, hide=hide))

    def masks(self, tag: str, domain: Domain, shape: Shape, scale: int) -> Share:
        """The dealer's share of a new sharing: a, from the key with party 2, and b."""
        return Share(domain, np.stack([self.draw(p, tag, "mask", shape) for p in (2, 1)]), scale)

    def settle(
        self, tag: str, domain: Domain, z: Words, scale: int, *, hide: Words | None = None
    ) -> Op[Share]:
        """A new sharing, at parties 1 and 2, of their summands and what the dealer may send of its own."""
        mask, other = self.draw(DEALER, tag, "mask", z.shape), 3 - self.party
        mine = domain.subtract(z, mask)
        told = mine if hide is None else domain.add(mine, hide)
        recv = {other: [z.shape]} if hide is None else {other: [z.shape], DEALER: [z.shape]}
        got = yield Round(send={other: [told]}, recv=recv)
        m = mine
        for words in got.values():
            m = domain.add(m, words[0])
        return Share(domain, np.stack([mask, m] if self.party == 1 else [m, mask]), scale)

    def gate(self, x: Share, count: int, gate: Gate, scale: int) -> Op[list[Share]]:
        """What a gate makes of x: 2 rounds.

        The dealer knows a mask r and deals functions of it; the others open x + r and put the two together.
        """
        tag, add = self.tag(), gate.domain.add
        opened, deal, results = (gate.opened(count),), (gate.dealt, count), (gate.results, count)
        product = isinstance(x, Product)
        if self.party == DEALER:
            r = add(*(self.draw(p, tag, "open", opened) for p in (1, 2)))
            half, hidden = self.draw(1, tag, "deal", deal), []
            if product:
                own = add(*(self.draw(p, tag, "hide", opened) for p in (1, 2)))
                r, hidden = add(r, own), [add(own, x.data[0].reshape(-1))]
            gate.deal(r, half)
            yield Round(send={1: hidden, 2: [*hidden, half]})
            yield Round()
            return self.parts(self.masks(tag, Z64, results, scale), x, count)
        mine = x.data[0] if product or self.party == 1 else x.domain.add(x.data[0], x.data[1])
        told = add(mine.reshape(-1), self.draw(DEALER, tag, "open", opened))
        due = [opened] * product + [deal] * (self.party == 2)
        got = yield Round(send={3 - self.party: [told]}, recv={3 - self.party: [opened], DEALER: due})
        c = add(told, got[3 - self.party][0])
        c = add(c, got[DEALER][0]) if product else c
        half = self.draw(DEALER, tag, "deal", deal) if self.party == 1 else got[DEALER][-1]
        y = np.empty(results, dtype=np.uint64)
        gate.combine(c, half, y, first=self.party == 1)
        return self.parts((yield from self.settle(tag, Z64, y, scale)), x, count)

    @staticmethod
    def parts(y: Share, x: Share, count: int) -> list[Share]:
        """The results of a gate one by one, in the shape of x where they are as many."""
        shape = x.shape if count == x.size else (count,)
        return [y.like(y.data[:, i].reshape(2, *shape)) for i in range(y.shape[0])]

    @declared(lambda _, x, *_bits: gate_cost(x, x.size, opened=x.size, dealt=2, results=1))
    def truncate(self, x: Share, bits: int) -> Op[Share]:
        """A gate; the default would open x under a mask that nobody knows, at many times the cost."""
        return (yield from self.gate(x, x.size, Truncation(bits), x.scale - bits))[0]

    @declared(
        lambda _, x, series, **_bits: gate_cost(
            x, x.size, opened=x.size, dealt=union(*series).dealt, results=len(series)
        )
    )
    def fourier(
        self, x: Share, series: Sequence[Series], *, dealt_bits: int, coefficient_bits: int
    ) -> Op[list[Share]]:
        """A gate that deals cosines and sines of the mask."""
        gate = Fourier(series, scale=x.scale, dealt_bits=dealt_bits, coefficient_bits=coefficient_bits)
        return (yield from self.gate(x, x.size, gate, dealt_bits + coefficient_bits))

    @declared(lambda _, x, count: gate_cost(x, count, opened=packed_words(count), dealt=1, results=1))
    def bits_to_ring(self, x: Share, count: int) -> Op[Share]:
        """A gate that deals the bits of the mask."""
        return (yield from self.gate(x, count, BitsToRing(), 0))[0]
