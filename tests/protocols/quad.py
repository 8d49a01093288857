"""A protocol for tests of what nodes do around one: four parties, each of whom lacks one component of four.

It keeps values as replicated sharings do, and computes in the open, so it hides nothing while a plan runs.
Every value that leaves, or is opened, is compared among those who hold its components.
"""

from __future__ import annotations

import contextlib
import secrets

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols import bitplanes
from tercet.protocols.base import Cost, Product, Protocol, Round, Share, align, declared, require_full
from tercet.protocols.domains import BITS, WORD_BYTES, Z64, decode, encode

PARTIES = range(4)


def held_by(party):
    return [component for component in PARTIES if component != party]


class Quad(Protocol):
    """Party i holds all components but i."""

    name = "quad"
    held = 3
    held_of_product = 1
    sizes = (4,)
    malicious = True
    group_keys = True

    @classmethod
    def deal(cls, values, *, domain, parties):
        assert parties == 4
        shape = values.shape
        drawn = [np.frombuffer(secrets.token_bytes(8 * values.size), np.uint64) for _ in range(3)]
        parts = [one.reshape(shape) for one in drawn]
        parts.append(domain.subtract(values, domain.total(parts)))
        return [[parts[component] for component in held_by(party)] for party in PARTIES]

    def _component(self, x, component):
        return np.ascontiguousarray(x.data[held_by(self.party).index(component)])

    @classmethod
    def combine(cls, parts, *, domain, shape):
        components = []
        for component in PARTIES:
            holders = held_by(component)
            found = [parts[party][held_by(party).index(component)].reshape(shape) for party in holders]
            if any(not np.array_equal(one, found[0]) for one in found):
                raise ProtocolError(f"parties {holders} disagree on component {component} of a result")
            components.append(found[0])
        return domain.total(components)

    def held_alike(self, x):
        return self._held(x)

    def _held(self, x):
        both = {peer: [c for c in held_by(self.party) if c != peer] for peer in self.keys}
        return {
            peer: np.stack([self._component(x, component) for component in components])
            for peer, components in both.items()
        }

    @declared(lambda self, x: self.cost("compare", self._held(x)))
    def reveal(self, x):
        require_full("a reveal", x)
        yield from self.compare(self._held(x))
        return self.export(x)

    def _opening_cost(self, x):
        words = WORD_BYTES * x.size
        if isinstance(x, Product):
            return self.each(1, 3 * words)
        return self.each(1, words) | self.cost("compare", self._held(x))

    def each(self, rounds, sent):
        return Cost(rounds, (sent,) * 4)

    @declared(_opening_cost)
    def opening(self, x):
        if isinstance(x, Product):
            own = np.ascontiguousarray(x.data[0])
            got = yield Round({p: [own] for p in self.keys}, {p: [x.shape] for p in self.keys})
            return x.domain.total([own, *(got[p][0] for p in self.keys)])
        before, after = (self.party - 1) % 4, (self.party + 1) % 4
        comparing = self.compare(self._held(x))
        step = next(comparing)
        sent = {peer: list(arrays) for peer, arrays in step.send.items()}
        due = {peer: list(shapes) for peer, shapes in step.recv.items()}
        sent[before].append(self._component(x, before))
        due[after].append(x.shape)
        got = yield Round(sent, due)
        missing = got[after][-1]
        with contextlib.suppress(StopIteration):
            comparing.send({peer: arrays[:1] for peer, arrays in got.items()})
        return x.domain.total([*x.data, missing])

    def constant(self, values, *, domain=Z64, scale=0, product=False):
        if product:
            data = values[None].copy() if self.party == 0 else np.zeros((1, *values.shape), np.uint64)
            return Product(domain, data, scale)
        parts = [values if component == 0 else np.zeros_like(values) for component in held_by(self.party)]
        return Share(domain, np.stack(parts), scale)

    def random(self, shape, *, domain=Z64):
        tag = self.tag()
        parts = [self.draw_without(c, tag, "random").words(shape) for c in held_by(self.party)]
        return Share(domain, np.stack(parts))

    def to_product(self, x):
        if isinstance(x, Product):
            return x
        # Party 0 holds all but its own component, which party 1 adds.
        own = {0: held_by(0), 1: [0]}.get(self.party, [])
        zero = np.zeros(x.shape, np.uint64)
        return Product(x.domain, x.domain.total([zero, *(self._component(x, c) for c in own)])[None], x.scale)

    def mul_local(self, x, y):
        require_full("a product", x, y)
        a, b = (x.like(data) for data in align(x, y))
        total = np.zeros(np.broadcast_shapes(a.shape, b.shape), np.uint64)
        for one in PARTIES:
            for other in PARTIES:
                if self.party == min(party for party in PARTIES if party not in (one, other)):
                    term = x.domain.multiply(self._component(a, one), self._component(b, other))
                    total = x.domain.add(total, term)
        return Product(x.domain, total[None], x.scale + y.scale)

    @declared(lambda self, x: self.cost("opening", x))
    def reduce(self, x):
        return self.constant((yield from self.opening(x)), domain=x.domain, scale=x.scale)

    @declared(lambda self, x, *_, **__: self.cost("opening", x))
    def truncate(self, x, bits):
        values = (yield from self.opening(x)).view(np.int64)
        rounded = (values + (np.int64(1) << np.int64(bits - 1))) >> np.int64(bits)
        return self.constant(rounded.view(np.uint64), scale=x.scale - bits)

    @declared(lambda self, x, *_, **__: self.cost("opening", x))
    def nearest(self, x, bits):
        return self.truncate(x, bits)

    @declared(lambda self, x, *_, **__: self.cost("opening", x))
    def fourier(self, x, series, *, dealt_bits, coefficient_bits):
        scale = dealt_bits + coefficient_bits
        values = decode((yield from self.opening(x)), x.scale)
        return [self.constant(encode(one(values), scale), scale=scale) for one in series]

    @declared(lambda self, x, *_, **__: self.cost("opening", x))
    def bits_to_ring(self, x, count):
        return self.constant(bitplanes.unpack_bits((yield from self.opening(x)), count).astype(np.uint64))

    @declared(lambda self, x, *_, **__: self.cost("opening", x))
    def is_negative(self, x, bits=64):
        sign = ((yield from self.opening(x)) >> np.uint64(bits - 1)) & np.uint64(1)
        return self.constant(bitplanes.pack_bits(sign.astype(np.uint8)), domain=BITS)

    @declared(lambda self, x, *_, **__: self.cost("opening", x))
    def is_zero(self, x):
        zero = (yield from self.opening(x)) == 0
        return self.constant(bitplanes.pack_bits(zero.astype(np.uint8)), domain=BITS)
