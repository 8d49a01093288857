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

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Cost, Op, Product, Protocol, Round, Shape, Share, align, declared
from tercet.protocols.domains import WORD_BYTES, Z64, Domain, Words
from tercet.protocols.fourier import Series
from tercet.protocols.gates import BitsToRing, Fourier, Gate, Truncation
from tercet.protocols.replicated import DIGEST_WORDS, digest

DEALER = 0


def sent(rounds: int, *, dealer: int, others: int) -> Cost:
    """The cost of so many words sent by the dealer, and by each of the others."""
    return Cost(rounds, (dealer * WORD_BYTES, others * WORD_BYTES, others * WORD_BYTES))


def gate_cost(x: Share, count: int, gate: Gate) -> Cost:
    """The cost of `Additive.gate`; of a product, the dealer sends its own summand to both others."""
    own = 2 * gate.opened(count) * isinstance(x, Product)
    return sent(2, dealer=gate.dealt * count + own, others=gate.opened(count) + gate.results * count)


class Additive(Protocol):
    """Three parties, one of them a dealer of masks; one corrupt, semi-honest. An example."""

    name = "additive"
    held = 2
    sizes = (3,)
    truncates_down = True

    # Words go round: the second word of a party is the first one of the next.

    @classmethod
    def deal(cls, values: Words, *, domain: Domain, parties: int) -> list[list[Words]]:  # noqa: ARG003
        """Two random masks, and what they leave; an array of the value's shape for each word held."""
        a, b = np.frombuffer(secrets.token_bytes(2 * values.nbytes), np.uint64).reshape(2, *values.shape)
        m = domain.subtract(domain.subtract(values, a), b)
        return [[a, b], [b, m], [m, a]]

    @classmethod
    def combine(cls, parts: Sequence[Sequence[Words]], *, domain: Domain, shape: Shape) -> Words:
        """The sum of the three words, each of which its two holders have to agree on."""
        if not all(np.array_equal(parts[p][1], parts[(p + 1) % 3][0]) for p in range(3)):
            raise ProtocolError("two parties disagree on a word of a result, which was thrown away")
        return domain.total(part[0] for part in parts).reshape(shape)

    @declared(lambda _, x: sent(1, dealer=x.size + DIGEST_WORDS, others=x.size + DIGEST_WORDS))
    def opening(self, x: Share) -> Op[Words]:
        """One round: of the two holders of a word, one sends it to the party that lacks it, one a digest."""
        after, before = (self.party + 1) % 3, (self.party - 1) % 3
        got = yield Round(
            send={after: [x.data[0]], before: [digest(x.data[1])]},
            recv={before: [x.shape], after: [(DIGEST_WORDS,)]},
        )
        if not np.array_equal(digest(got[before][0]), got[after][0]):
            raise ProtocolError(f"parties {before} and {after} disagree on a word of an opened value")
        return x.domain.total([*x.data, got[before][0]])

    def constant(
        self, values: Words, *, domain: Domain = Z64, scale: int = 0, product: bool = False
    ) -> Share:
        """The value is m, and masks are zero."""
        nothing = np.zeros_like(values)
        words = [[nothing, nothing], [nothing, values], [values, nothing]][self.party]
        return Product(domain, words[0][None], scale) if product else Share(domain, np.stack(words), scale)

    def random(self, shape: Shape, *, domain: Domain = Z64) -> Share:
        """Every word from the key of its two holders."""
        tag = self.tag()
        return Share(
            domain, np.stack([self.draw_with((self.party + p) % 3, tag, "random", shape) for p in (2, 1)])
        )

    def mul_local(self, x: Share, y: Share) -> Product:
        """Of the nine products of words, the three that start at this party's first word."""
        (x0, x1), (y0, y1) = align(x, y)
        z = x.domain.add(x.domain.multiply(x0, x.domain.add(y0, y1)), x.domain.multiply(x1, y0))
        return Product(x.domain, z[None], x.scale + y.scale)

    @declared(lambda _, x: sent(1, dealer=2 * x.size, others=x.size))
    def reduce(self, x: Share) -> Op[Share]:
        """One round: new masks, and m from what all three hold, each hidden by a summand of zero."""
        tag = self.tag()
        z = self.hidden(tag, x)
        if self.party == DEALER:
            yield Round(send={1: [z], 2: [z]})
        return (yield from self.settle(tag, x.domain, z, x.scale, heard=[DEALER]))

    def settle(
        self, tag: str, domain: Domain, z: Words, scale: int, *, heard: Sequence[int] = ()
    ) -> Op[Share]:
        """A new sharing of the summands of parties 1 and 2, and of those of the parties `heard`: 1 round."""
        if self.party == DEALER:
            return Share(domain, np.stack([self.draw_with(p, tag, "mask", z.shape) for p in (2, 1)]), scale)
        mask, other = self.draw_with(DEALER, tag, "mask", z.shape), 3 - self.party
        mine = domain.subtract(z, mask)
        got = yield Round(send={other: [mine]}, recv={peer: [z.shape] for peer in (other, *heard)})
        m = domain.total([mine, *(words[0] for words in got.values())])
        return Share(domain, np.stack([mask, m] if self.party == 1 else [m, mask]), scale)

    def gate(self, x: Share, count: int, gate: Gate, scale: int) -> Op[list[Share]]:
        """What a gate makes of x: 2 rounds.

        The dealer knows a mask r and deals functions of it; the others open x + r and put the two together.
        """
        tag, add, product = self.tag(), gate.domain.add, isinstance(x, Product)
        opened, dealt = (gate.opened(count),), (gate.dealt, count)
        own = self.hidden(tag, x) if product else x.data[0] if self.party == 1 else add(*x.data)
        y = np.empty((gate.results, count), dtype=np.uint64)
        if self.party == DEALER:
            half = self.draw_with(1, tag, "deal", dealt)
            gate.deal(add(*(self.draw_with(p, tag, "open", opened) for p in (1, 2))), half)
            hidden = [own.reshape(-1)] * product
            yield Round(send={1: hidden, 2: [*hidden, half]})
            yield Round()
        else:
            told, other = add(own.reshape(-1), self.draw_with(DEALER, tag, "open", opened)), 3 - self.party
            due = [opened] * product + [dealt] * (self.party == 2)
            got = yield Round(send={other: [told]}, recv={other: [opened], DEALER: due})
            c = x.domain.total([told, got[other][0], *got[DEALER][:product]])
            half = self.draw_with(DEALER, tag, "deal", dealt) if self.party == 1 else got[DEALER][-1]
            gate.combine(c, half, y, first=self.party == 1)
        made = yield from self.settle(tag, Z64, y, scale)
        shape = x.shape if count == x.size else (count,)
        return [made.like(made.data[:, i].reshape(2, *shape)) for i in range(gate.results)]

    @declared(lambda _, x, bits: gate_cost(x, x.size, Truncation(bits)))
    def truncate(self, x: Share, bits: int) -> Op[Share]:
        """A gate; the default would open x under a mask that nobody knows, at many times the cost."""
        return (yield from self.gate(x, x.size, Truncation(bits), x.scale - bits))[0]

    @declared(lambda _, x, series, **bits: gate_cost(x, x.size, Fourier(series, scale=x.scale, **bits)))
    def fourier(
        self, x: Share, series: Sequence[Series], *, dealt_bits: int, coefficient_bits: int
    ) -> Op[list[Share]]:
        """A gate that deals cosines and sines of the mask."""
        gate = Fourier(series, scale=x.scale, dealt_bits=dealt_bits, coefficient_bits=coefficient_bits)
        return (yield from self.gate(x, x.size, gate, dealt_bits + coefficient_bits))

    @declared(lambda _, x, count: gate_cost(x, count, BitsToRing()))
    def bits_to_ring(self, x: Share, count: int) -> Op[Share]:
        """A gate that deals the bits of the mask."""
        return (yield from self.gate(x, count, BitsToRing(), 0))[0]
