"""Shamir's sharing (1979) among n parties: polynomials, who deals them, how what is shared comes to light.

A value is the constant term of a random polynomial of degree t < n/2; party i holds the polynomial at the
point i + 1. Numbers live modulo 2^127 - 1, bits in the field of eight elements, and everything here is
written once for both. Any t parties hold independent uniform elements; any t + 1 determine the value, so the
others serve to check them.

A dealer lets t of its polynomial's values be pseudorandom, drawn from the keys that it has with the next t
parties, and sends the rest: t elements, where a dealer of explicit shares sends 2 t (compare Cramer,
Damgård, Ishai 2005). What a party alone may know is drawn from all of its keys, of which t other parties
miss at least one.
"""

from __future__ import annotations

import functools
import math
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.base import Cost, Op, Product, Protocol, Round, Shape, Share, align, declared
from tercet.protocols.domains import BITS, WORD_BYTES, Z64, Domain, Words
from tercet.protocols.fields import Field
from tercet.protocols.gf8 import GF8
from tercet.protocols.mersenne import MERSENNE
from tercet.protocols.prg import KEY_BYTES, Stream, derive_key
from tercet.protocols.replicated import DIGEST_WORDS, digest

Kind = tuple[Field, Shape]
"""What is dealt: elements of a field, in an array of a shape."""


def field_of(domain: Domain) -> Field:
    """The field in which values of a domain are shared."""
    return MERSENNE if domain is Z64 else GF8


def threshold(parties: int) -> int:
    """The most parties that may be corrupt: the degree of polynomials."""
    return (parties - 1) // 2


class Polynomials(Protocol):
    """How values come into sharings and out of them; the degree of a full sharing is t, of a product 2 t."""

    held: ClassVar[int] = 3
    words_uniform: ClassVar[bool] = False
    masks_hide_all: ClassVar[bool] = False

    def __init__(self, *, party: int, parties: int, keys: Mapping[int, bytes]) -> None:
        if parties not in self.sizes or party not in range(parties):
            raise ProtocolError(
                f"protocol {self.name!r} runs among {', '.join(map(str, self.sizes))} parties, not party "
                f"{party} of {parties}"
            )
        super().__init__(party=party, parties=parties, keys=keys)
        self.degree = threshold(parties)
        try:
            joined = b"".join(keys[other] for other in range(parties) if other != party)
        except KeyError as missing:
            raise ProtocolError(f"party {party} has no session key with party {missing}") from None
        self._own_key = derive_key(joined[:KEY_BYTES], b"own" + joined)

    # -- who is who ------------------------------------------------------------------------------------------

    @property
    def everyone(self) -> tuple[int, ...]:
        """All parties."""
        return tuple(range(self.parties))

    @property
    def dealers(self) -> tuple[int, ...]:
        """The t + 1 parties that mask a value together: at least one of them is honest."""
        return tuple((self.dealer + k) % self.parties for k in range(self.degree + 1))

    def _near(self, dealer: int) -> list[int]:
        """The t parties that draw their share of what a dealer deals."""
        return [(dealer + 1 + k) % self.parties for k in range(self.degree)]

    def _far(self, dealer: int) -> list[int]:
        """The t parties to which a dealer sends their share."""
        return [(dealer - 1 - k) % self.parties for k in range(self.degree)]

    def own_stream(self, tag: str, purpose: str) -> Stream:
        """A stream that this party alone can draw."""
        return self.stream(self._own_key, tag, purpose)

    # -- one round -------------------------------------------------------------------------------------------

    def share_out(
        self, tag: str, dealers: Sequence[int], kinds: Sequence[Kind], secrets: Sequence[Words]
    ) -> Op[dict[int, list[Words]]]:
        """This party's shares, by dealer, of the elements that each dealer knows: 1 round.

        Who is no dealer passes no secrets.
        """

        def drawn(pair: int, dealer: int) -> list[Words]:
            stream = self.stream(self.keys[pair], tag, f"share of {dealer}")
            return [field.uniform(stream, shape) for field, shape in kinds]

        shares: dict[int, list[Words]] = {}
        send: dict[int, list[Words]] = {}
        if self.party in dealers:
            near = self._near(self.party)
            points = (0, *(other + 1 for other in near))
            given = list(zip(secrets, *(drawn(other, self.party) for other in near), strict=True))
            for party in (*self._far(self.party), self.party):
                made = [
                    field.interpolate(points, values, at=party + 1)
                    for (field, _), values in zip(kinds, given, strict=True)
                ]
                (shares if party == self.party else send)[party] = made
        others = [dealer for dealer in dealers if dealer != self.party]
        far = [dealer for dealer in others if self.party in self._far(dealer)]
        got = yield Round(send, {dealer: [(field.limbs, *shape) for field, shape in kinds] for dealer in far})
        for dealer in others:
            shares[dealer] = list(got[dealer]) if dealer in far else drawn(dealer, dealer)
        return shares

    def share_out_cost(self, dealers: Sequence[int], words: int) -> Cost:
        """Cost of `share_out` of so many words in all."""
        return self._from(dealers, self.degree * words)

    def announce(self, tag: str, speakers: Sequence[int], x: Share, mask: Words | None) -> Op[Words]:
        """Elements that all parties learn: the value of `x` and the masks of those who pass one. 1 round.

        What each of the speakers says is an additive summand under a sharing of zero among them, so t parties
        learn the sum and no more. A product takes all parties to speak, a full sharing t + 1.
        """
        field, shape = field_of(x.domain), x.data.shape
        send: dict[int, list[Words]] = {}
        total = np.zeros(shape, dtype=np.uint64)
        if self.party in speakers:
            weights = dict(zip(speakers, field.weights(tuple(other + 1 for other in speakers)), strict=True))
            total = field.combine([weights[self.party]], [x.data])
            if mask is not None:
                total = field.add(total, mask)
            for other in speakers:
                if other != self.party:
                    zero = field.uniform(self.stream(self.keys[other], tag, "zero"), x.shape)
                    total = (field.add if self.party < other else field.subtract)(total, zero)
            send = {other: [total] for other in self.everyone if other != self.party}
        got = yield Round(send, {other: [shape] for other in speakers if other != self.party})
        for (summand,) in got.values():
            total = field.add(total, summand)
        return total

    def announce_cost(self, speakers: Sequence[int], words: int) -> Cost:
        """Cost of `announce` of so many words."""
        return self._from(speakers, (self.parties - 1) * words)

    def _from(self, senders: Iterable[int], words: int) -> Cost:
        """The cost of one round in which each sender sends so many words."""
        sent = [0] * self.parties
        for sender in senders:
            sent[sender] = words * WORD_BYTES
        return Cost(1, tuple(sent))

    def words(self, x: Share) -> int:
        """Words of a party's share."""
        return field_of(x.domain).limbs * x.size

    # -- values in and out -----------------------------------------------------------------------------------

    def spec(self, shape: Shape, *, domain: Domain = Z64, scale: int = 0, product: bool = False) -> Share:
        """A stand-in of a share, without memory."""
        data = np.broadcast_to(np.uint64(0), (field_of(domain).limbs, *shape))
        return (Product if product else Share)(domain, data, scale)

    @classmethod
    def deal(cls, values: Words, *, domain: Domain, parties: int) -> list[list[Words]]:
        """The first t parties get 32-byte seeds, the others the share that follows."""
        field, degree = field_of(domain), threshold(parties)
        seeds = [np.frombuffer(secrets.token_bytes(KEY_BYTES), dtype=np.uint64) for _ in range(degree)]
        given = [field.encode(values), *(_expand(field, seed, values.shape) for seed in seeds)]
        points = tuple(range(degree + 1))
        rest = [field.interpolate(points, given, at=party + 1) for party in range(degree, parties)]
        return [[part] for part in (*seeds, *rest)]

    @classmethod
    def dealt_shapes(cls, shape: Shape, *, domain: Domain, party: int, parties: int) -> list[Shape]:
        """A seed is four words."""
        seeded = party < threshold(parties)
        return [(KEY_BYTES // WORD_BYTES,) if seeded else (field_of(domain).limbs, *shape)]

    def accept(self, parts: Sequence[Words], *, domain: Domain, shape: Shape, scale: int) -> Share:
        """Expand the seed, if it is one."""
        field, (part,) = field_of(domain), parts
        seeded = self.party < self.degree
        return Share(domain, _expand(field, part, shape) if seeded else part, scale)

    def export(self, x: Share) -> list[Words]:
        """The first t + 1 parties' shares, the others' digests."""
        data = np.ascontiguousarray(x.data)
        return [data if self.party <= self.degree else digest(data)]

    @classmethod
    def combine(cls, parts: Sequence[Sequence[Words]], *, domain: Domain, shape: Shape) -> Words:
        """The value of the first t + 1 shares, from which those of the others must follow."""
        field, count = field_of(domain), threshold(len(parts)) + 1
        points = tuple(range(1, count + 1))
        given = [part[0].reshape(field.limbs, *shape) for part in parts[:count]]
        for party in range(count, len(parts)):
            if not np.array_equal(digest(field.interpolate(points, given, at=party + 1)), parts[party][0]):
                raise ProtocolError(
                    f"party {party}'s share of a result does not fit those of parties 0 to {count - 1}; one "
                    "of them is faulty, and the result was thrown away"
                )
        return field.decode(field.interpolate(points, given))

    @declared(lambda self, x: self._from(self.everyone, self.degree * (self.words(x) + DIGEST_WORDS)))
    def opening(self, x: Share) -> Op[Words]:
        """One round: every share in full to t parties, its digest to the t others, who can compute it."""
        field, data = field_of(x.domain), np.ascontiguousarray(x.data)
        near, far = self._near(self.party), self._far(self.party)
        send = {party: [data] for party in near} | {party: [digest(data)] for party in far}
        recv = {party: [data.shape] for party in far} | {party: [(DIGEST_WORDS,)] for party in near}
        got = yield Round(send, recv)
        points = (self.party + 1, *(party + 1 for party in far))
        given = [data, *(got[party][0] for party in far)]
        for party in near:
            if not np.array_equal(digest(field.interpolate(points, given, at=party + 1)), got[party][0]):
                raise ProtocolError(
                    f"the opening of {self._operation!r} failed its cross-check: the share of party {party} "
                    f"does not fit those of parties {sorted((self.party, *far))}"
                )
        return field.decode(field.interpolate(points, given))

    def constant(
        self, values: Words, *, domain: Domain = Z64, scale: int = 0, product: bool = False
    ) -> Share:
        """The constant polynomial."""
        return (Product if product else Share)(domain, field_of(domain).encode(values), scale)

    @declared(
        lambda self, shape, domain=Z64: self.share_out_cost(
            self.dealers, field_of(domain).limbs * math.prod(shape)
        )
    )
    def fresh(self, shape: Shape, *, domain: Domain = Z64) -> Op[Share]:
        """The sum of what t + 1 parties deal: 1 round. More than two hold a polynomial, so keys do not do."""
        field, tag = field_of(domain), self.tag()
        deals = self.party in self.dealers
        own = [field.encode(self.own_stream(tag, "random").words(shape))] if deals else []
        dealt = yield from self.share_out(tag, self.dealers, [(field, shape)], own)
        return Share(domain, total(field, dealt))

    # -- linear, local ---------------------------------------------------------------------------------------

    def add(self, x: Share, y: Share) -> Share:
        """Sum of polynomials."""
        x, y = self._alike(x, y)
        return x.like(field_of(x.domain).add(*align(x, y)))

    def subtract(self, x: Share, y: Share) -> Share:
        """Difference of polynomials."""
        x, y = self._alike(x, y)
        return x.like(field_of(x.domain).subtract(*align(x, y)))

    def to_product(self, x: Share) -> Product:
        """A polynomial of degree t is one of degree 2 t."""
        return x if isinstance(x, Product) else Product(x.domain, x.data, x.scale)

    def mul_public(self, x: Share, values: Words, *, scale: int = 0) -> Share:
        """Signed integers times the polynomial; bits select."""
        if x.domain is BITS:
            return super().mul_public(x, values, scale=scale)
        factor, lifted = align(Share(Z64, MERSENNE.encode(values)), x)
        return x.like(MERSENNE.multiply(lifted, factor), scale=x.scale + scale)

    def matmul_public(self, values: Words, x: Share, *, scale: int = 0) -> Share:
        """Product `(m, k) @ (k, n)` of a public matrix and a secret one."""
        return x.like(MERSENNE.matmul(MERSENNE.encode(values), x.data), scale=x.scale + scale)

    def sum(self, x: Share, axis: int = -1) -> Share:
        """Sum of polynomials."""
        if x.domain is BITS:
            return super().sum(x, axis)
        return x.like(MERSENNE.sum(x.data, axis))

    def cumulate(self, x: Share) -> Share:
        """Running sums of polynomials."""
        return x.like(MERSENNE.cumulate(x.data))


def total(field: Field, dealt: Mapping[int, Sequence[Words]], index: int = 0) -> Words:
    """The sum over dealers of one of the arrays that they dealt."""
    return functools.reduce(field.add, (shares[index] for shares in dealt.values()))


def _expand(field: Field, seed: Words, shape: Shape) -> Words:
    return field.uniform(Stream(seed.tobytes(), b"input"), shape)


__all__ = ["Kind", "Polynomials", "field_of", "threshold", "total"]
