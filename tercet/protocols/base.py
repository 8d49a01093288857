"""The plug-in interface: what a protocol gives to the rest of Tercet.

A protocol is one class. Its core, which every subclass writes, is how values are dealt and put together, how
public and random values are shared, openings, products, and two masked functions: bits to numbers, and
Fourier series. Everything else follows from that and is inherited, here where it is linear, from `defaults`
where it talks; a protocol overrides what it can do faster. Shares, rounds and costs are in `shares`.
"""

from __future__ import annotations

import abc
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np

from tercet.errors import PrivacyError, ProtocolError
from tercet.protocols import defaults
from tercet.protocols.detour import Detour
from tercet.protocols.domains import BITS, WORD_BYTES, Z64, Domain, Words
from tercet.protocols.fourier import Series
from tercet.protocols.kernels import Indices, take_columns
from tercet.protocols.prg import Stream, StreamKey
from tercet.protocols.shares import (
    Cost,
    Exchange,
    Op,
    Product,
    Received,
    Round,
    Shape,
    Share,
    T,
    align,
    declared,
    gather,
    require_alike,
    require_full,
    require_one_dimension,
)
from tercet.protocols.together import Team
from tercet.protocols.vouching import Tags


class Protocol(abc.ABC):
    """A secret-sharing protocol, as one party of a session sees it.

    The core, to be written: `deal`, `combine`, `constant`, `random` or `fresh`, `opening`, `mul_local`,
    `reduce`, `bits_to_ring` and `fourier`, those that talk with a declared cost. The rest may be inherited.

    What has to hold of a subclass: `Share.data` is `(held, *shape)` words, and sharings are linear word by
    word, so that sums, public factors, slices and reshapes are done on the data. Shapes have any number of
    axes: values of nodes that are alike are stacked, or laid out flat one after the other. Shares travel only
    in what an operation yields. Nothing that a party receives tells it anything, within the threat model,
    beyond what is opened. All randomness inside a session comes from `stream`, by names that `tag` makes,
    drawn in the same order at every party: then results do not depend on the order in which operations run,
    and no mask is used twice. The number, order and lengths of messages depend on shapes and public arguments
    only.

    Instances are cheap: the scheduler calls `bind` for every operation it starts, which names the operation's
    random streams, picks its dealer and sets how many words it may open. Nothing here does I/O, and an
    instance is used by one thread at a time. `tercet.testing.check_protocol` tests all this.

    Arguments of the constructor: the party's index, the number of parties, and for every other party the
    session key that the two share (32 bytes, fresh for the session).
    """

    name: ClassVar[str]
    """What users write in `protocol=`."""
    held: ClassVar[int]
    """Words a party holds for each shared word."""
    held_of_product: ClassVar[int] = 1
    """Words a party holds for each word of a `Product`."""
    sizes: ClassVar[tuple[int, ...]]
    """Numbers of parties it can run with; the first is the default."""
    truncates_down: ClassVar[bool] = False
    """Whether `truncate` gives the integer below or the one above, never another, so `nearest` is cheaper."""
    masks_hide_all: ClassVar[bool] = True
    """Whether masked openings tell nothing of numbers of any size, or only of those below 2^62."""
    words_uniform: ClassVar[bool] = True
    """Whether every 64-bit word is as likely as any other in a message, which `check_protocol` tests."""
    malicious: ClassVar[bool] = False
    """Whether corrupt parties may do anything: a lie is noticed before what hangs on it is sent, and the run
    is given up. Otherwise corrupt parties are held to follow the protocol, and may only look."""
    shuffles_together: ClassVar[bool] = False
    """Whether `shuffle` knows of a `team`; otherwise one member of a party shuffles, and sorts, all rows."""
    group_keys: ClassVar[bool] = False
    """Whether it needs keys of all parties but one, beside those of pairs: see `groups`."""

    def __init__(self, *, party: int, parties: int, keys: Mapping[int, bytes]) -> None:
        self.party = party
        self.parties = parties
        self.keys = keys
        self.dealer = 0
        self.groups: Mapping[int, bytes] = {}
        """By party: the key that all others have in common, which that party does not know. Set by whoever
        runs the protocol, for the session, if it has `group_keys`: made from what each of them drew, and
        compared by all of them before it is used."""
        self.allocate = in_memory
        """Makes arrays of words that are not set. Those with a word or more for every row of a table come
        from here: whoever runs the protocol may want them elsewhere than in memory."""
        self.reach = sys.maxsize
        """Bytes of such an array that may be read in random order; of longer ones, rows are moved by runs."""
        self.team: Team | None = None
        """The members of this party that run the operation together, each on its block of rows, if there are
        several; set by whoever runs the protocol, for kinds of nodes that know of it."""
        self._operation = ""
        self._drawn = 0
        self._openings = 0
        self._bound: set[str] = set()
        self._ciphers: dict[bytes, StreamKey] = {}
        self._tags: dict[int, Tags] = {}

    @property
    def truncation_error(self) -> int:
        """By how many units `truncate` may differ from the nearest number."""
        return 1

    @property
    def truncation_bias(self) -> float | None:
        """By how much the mean of `truncate`, over its masks, may differ from `x / 2**bits`: units of `x`.

        So `1 / 2**bits` units of the result each. None for a protocol that promises nothing of the mean.
        """
        return 0.0

    # -- operations and their streams ------------------------------------------------------------------------

    def bind(self, operation: str, *, dealer: int = 0, openings: int = 0) -> Self:
        """The protocol bound to one operation of the session.

        `operation` names it, alike at every party and once in a session; `dealer` picks the party that deals
        correlated randomness; `openings` is the number of words that it may open. Raises ProtocolError if the
        name was used before.
        """
        if operation in self._bound:
            raise ProtocolError(
                f"operation {operation!r} was started twice in one session; its masks would repeat"
            )
        self._bound.add(operation)
        bound = object.__new__(type(self))  # quicker than copy.copy, thousands of times a run
        bound.__dict__.update(self.__dict__)
        bound._operation = operation
        bound._drawn = 0
        bound._openings = openings
        bound.dealer = dealer % self.parties
        return bound

    def part(self, *, dealer: int) -> Self:
        """The protocol bound to a part of this operation, with streams of its own and a dealer of its own."""
        return self.bind(self.tag(), dealer=dealer)

    def tag(self) -> str:
        """A new name for randomness of this operation. Every party draws the same tags, in the same order."""
        self._drawn += 1
        # The length makes names prefix-free: no operation's tag reads like another's tag and purpose.
        return f"{len(self._operation)}:{self._operation}/{self._drawn}"

    def stream(self, key: bytes, tag: str, purpose: str) -> Stream:
        """The pseudorandom stream of a key for a tag and purpose."""
        ciphers = self._ciphers.get(key)
        if ciphers is None:
            ciphers = self._ciphers[key] = StreamKey(key)
        return Stream(ciphers, f"{tag}/{purpose}".encode())

    def draw_with(self, peer: int, tag: str, purpose: str, shape: Shape) -> Words:
        """Random words that this party and a peer know, and nobody else: no rounds."""
        return self.stream(self.keys[peer], tag, purpose).words(shape)

    def draw_without(self, party: int, tag: str, purpose: str) -> Stream:
        """Random words that all but one party know: no rounds. KeyError at that party."""
        return self.stream(self.groups[party], tag, purpose)

    def tags(self, peer: int) -> Tags:
        """What makes tags that only this party and a peer can make; see `vouching`."""
        if peer not in self._tags:
            self._tags[peer] = Tags(self.keys[peer])
        return self._tags[peer]

    @classmethod
    def corruptions(cls, parties: int) -> int:
        """How many parties may be corrupt together: fewer than half of them, unless overridden."""
        return (parties - 1) // 2

    def hidden(self, tag: str, x: Share) -> Words:
        """This party's first word of `x` and its summand of zero, which each pair of parties draws together.

        So all parties' add up to what the first words do, and those of any but all of them are random.
        """
        hidden: Words = x.data[0]
        for peer in self.keys:
            join = x.domain.add if peer > self.party else x.domain.subtract
            hidden = join(hidden, self.draw_with(peer, tag, "zero", x.shape))
        return hidden

    def cost(self, operation: str, *args: Any, **kwargs: Any) -> Cost:
        """The declared cost of an operation on these arguments, shares or `spec`s; overriding inherits it."""
        for cls in type(self).__mro__:
            declared_cost = getattr(vars(cls).get(operation), "declared_cost", None)
            if declared_cost is not None:
                return cast("Cost", declared_cost(self, *args, **kwargs))
        raise ProtocolError(
            f"protocol {self.name!r} declares no cost for {operation!r}; decorate it with `declared`"
        )

    def spec(self, shape: Shape, *, domain: Domain = Z64, scale: int = 0, product: bool = False) -> Share:
        """A stand-in of a share, without memory, to ask for costs."""
        kind = Product if product else Share
        return kind(
            domain,
            np.broadcast_to(np.uint64(0), (self.held_of_product if product else self.held, *shape)),
            scale,
        )

    def free(self) -> Cost:
        """The cost of local work."""
        return Cost(0, (0,) * self.parties)

    # -- values in and out -----------------------------------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def deal(cls, values: Words, *, domain: Domain, parties: int) -> list[list[Words]]:
        """Share `values` at their owner, with fresh randomness: for each party the arrays to send to it.

        Any subset of parties that may be corrupt holds words that are independent of `values`.
        """

    @classmethod
    def dealt_shapes(cls, shape: Shape, *, domain: Domain, party: int, parties: int) -> list[Shape]:
        """The shapes of what `deal` makes for `party`, so that a receiver can check before it allocates.

        Unless overridden, an array of the value's shape for each word held.
        """
        _ = domain, party, parties
        return [shape] * cls.held

    def accept(self, parts: Sequence[Words], *, domain: Domain, shape: Shape, scale: int) -> Share:
        """The share made of what an owner dealt to this party; unless overridden, just that."""
        return Share(domain, np.stack([part.reshape(shape) for part in parts]), scale)

    def held_alike(self, x: Share) -> Mapping[int, Words]:
        """The words of a value that this party and another both hold, by that party: none by default.

        Both have them in the same order, for every tile. Nodes compare digests before a plan reads a value.
        """
        _ = x
        return {}

    def export(self, x: Share) -> list[Words]:
        """What this party sends to a receiver outside for `combine`; unless overridden, all that it holds."""
        return [np.ascontiguousarray(part) for part in x.data]

    @classmethod
    @abc.abstractmethod
    def combine(cls, parts: Sequence[Sequence[Words]], *, domain: Domain, shape: Shape) -> Words:
        """The value behind all parties' exports.

        Raises ProtocolError if the parts contradict each other, as they do if one party changed its share.
        """

    @declared(defaults.reveal_cost)
    def reveal(self, x: Share) -> Op[list[Words]]:
        """What this party sends of `x` to a receiver outside, which is its `export`, once that may leave.

        Unless overridden, at once. A protocol that does not trust what the parties hold checks it here, in as
        many rounds as that takes, and raises ProtocolError: then this party answers with nothing of that run.
        It waits for all values of a run to pass; those that are ready together share rounds.
        """
        return defaults.reveal(self, x)

    @declared(defaults.compare_cost)
    def compare(self, known: Mapping[int, Words]) -> Op[None]:
        """Check that other parties hold the same words as this one, by peer: 1 round, a digest to each.

        For words that both hold: the digest tells a peer that holds them nothing new, and anybody else
        nothing at all, for it is under a key that the two share and used once. Every party compares with as
        many peers. Raises ProtocolError, naming the peer, for words that differ.
        """
        return defaults.compare(self, known)

    @declared(lambda self, x: self.cost("opening", x))
    def open(self, x: Share) -> Op[Words]:
        """The value of `x`, to all parties, cross-checked. PrivacyError beyond what the plan declares."""
        if isinstance(x, Product):
            raise ProtocolError(
                "a product cannot be opened: its summands tell more than its value; reduce it first"
            )
        if x.size > self._openings:
            raise PrivacyError(
                f"operation {self._operation!r} tried to open {x.size} words, of which its plan declares "
                f"{self._openings}; nothing was sent"
            )
        self._openings -= x.size
        return self.opening(x)

    @abc.abstractmethod
    def opening(self, x: Share) -> Op[Words]:
        """The protocol behind `open` and `open_masked`; call these, which keep count.

        Raises ProtocolError if what parties say contradicts each other, as it does if one changed its share.
        """

    @declared(lambda self, x, _: self.cost("opening", x))
    def open_masked(self, x: Share, mask: Share) -> Op[Words]:
        """`x + mask` to all parties. The mask comes from `fresh`, nobody knows it, and it is used once."""
        return self.opening(self.add(x, mask))

    @abc.abstractmethod
    def constant(
        self, values: Words, *, domain: Domain = Z64, scale: int = 0, product: bool = False
    ) -> Share:
        """A sharing of public values, no randomness; with `product`, as a `Product`."""

    def random(self, shape: Shape, *, domain: Domain = Z64) -> Share:
        """A sharing of uniformly random words that nobody knows, without a round, if that can be had.

        Only the `fresh` that is inherited calls it.
        """
        raise ProtocolError(
            f"random words {shape} in {domain} cannot be had without a round under {self.name!r}; use `fresh`"
        )

    @declared(lambda self, *_, **__: self.free())
    def fresh(self, shape: Shape, *, domain: Domain = Z64) -> Op[Share]:
        """A sharing of uniformly random words that nobody knows; unless overridden, `random`, and no rounds.

        A protocol whose parties cannot draw such words by their keys overrides it, in as many rounds as it
        takes, and leaves `random` alone.
        """
        yield from ()
        return self.random(shape, domain=domain)

    # -- linear, local ---------------------------------------------------------------------------------------

    def add(self, x: Share, y: Share) -> Share:
        """Sum (XOR for bits), a product if either is one. Shapes broadcast; scales must agree."""
        x, y = self._alike(x, y)
        a, b = align(x, y)
        return x.like(x.domain.add(a, b))

    def subtract(self, x: Share, y: Share) -> Share:
        """Difference (XOR for bits), a product if either is one."""
        x, y = self._alike(x, y)
        a, b = align(x, y)
        return x.like(x.domain.subtract(a, b))

    def to_product(self, x: Share) -> Product:
        """A full sharing as one that may be added to products. Local.

        Right for protocols whose products are sums of what parties hold, or sharings of higher degree.
        """
        return x if isinstance(x, Product) else Product(x.domain, x.data[:1], x.scale)

    def _alike(self, x: Share, y: Share) -> tuple[Share, Share]:
        if isinstance(x, Product) or isinstance(y, Product):
            x, y = self.to_product(x), self.to_product(y)
        require_alike(x, y)
        return x, y

    def add_public(self, x: Share, values: Words) -> Share:
        """Add public words, at the scale of `x`, to a sharing."""
        product = isinstance(x, Product)
        return self.add(x, self.constant(values, domain=x.domain, scale=x.scale, product=product))

    def mul_public(self, x: Share, values: Words, *, scale: int = 0) -> Share:
        """Multiply by public words (AND for bits); `scale` is the fractional bits that the factor carries."""
        lifted = x.data.reshape(x.data.shape[:1] + (1,) * (np.ndim(values) - len(x.shape)) + x.shape)
        return x.like(x.domain.multiply(lifted, values), scale=x.scale + scale)

    def sum(self, x: Share, axis: int = -1) -> Share:
        """Sum along an axis of the value."""
        axis = axis if axis < 0 else axis + 1
        return x.like(x.domain.reduce_add(x.data, axis=axis, dtype=np.uint64))

    def cumulate(self, x: Share) -> Share:
        """Running totals along the rows, each with its own row."""
        return x.like(np.cumsum(x.data, axis=-1, dtype=np.uint64))

    def take(self, x: Share, positions: Indices) -> Share:
        """Rows by public position, on the last axis. Raises IndexError for one that is not there."""
        *lead, rows = x.data.shape
        places = math.prod(lead)
        taken = self.allocate((places, positions.size))
        columns = np.ascontiguousarray(x.data).reshape(places, rows)
        detour = Detour.plan(positions, rows, 1, self.reach, self.allocate)
        if detour is None:
            take_columns(columns, positions, taken)
            return x.like(taken.reshape(*lead, positions.size))
        way = self.allocate((positions.size, 1))
        for column, result in zip(columns, taken, strict=True):
            np.take(detour.first(column[:, None], way)[:, 0], detour.near, mode="clip", out=result)
        return x.like(taken.reshape(*lead, positions.size))

    def matmul_public(self, values: Words, x: Share, *, scale: int = 0) -> Share:
        """Matrix product `(m, k) @ (k, n)` of public words, with `scale` fractional bits, and a sharing."""
        return x.like(np.matmul(values, x.data), scale=x.scale + scale)

    # -- products --------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def mul_local(self, x: Share, y: Share) -> Product:
        """Element-wise product before its round. Shapes broadcast."""

    def matmul_local(self, x: Share, y: Share) -> Product:
        """Matrix product `(m, k) @ (k, n)` before its round."""
        return defaults.matmul_local(self, x, y)

    def dot_local(self, x: Share, y: Share) -> Product:
        """Product over rows before its round: `(d, n), (e, n) -> (d, e)`."""
        return defaults.dot_local(self, x, y)

    @abc.abstractmethod
    def reduce(self, x: Share) -> Op[Share]:
        """A full sharing of a product."""

    @declared(defaults.mul_cost)
    def mul(self, x: Share, y: Share) -> Op[Share]:
        """Element-wise product (AND for bits) as a full sharing; scales add up."""
        return self.reduce(self.mul_local(x, y))

    # -- masked openings -------------------------------------------------------------------------------------

    @declared(defaults.truncate_cost)
    def truncate(self, x: Share, bits: int) -> Op[Share]:
        """`x / 2**bits`, within `truncation_error` of the nearest, for every |x| < 2^62, product or not."""
        return defaults.truncate(self, x, bits)

    @declared(defaults.nearest_cost)
    def nearest(self, x: Share, bits: int) -> Op[Share]:
        """`x / 2**bits` to the nearest, halves up, for every |x| < 2^61, product or not.

        Where `truncate` may round equal values apart, this gives all of them one result, at every party and
        in every run.
        """
        return defaults.nearest(self, x, bits)

    @abc.abstractmethod
    def fourier(
        self, x: Share, series: Sequence[Series], *, dealt_bits: int, coefficient_bits: int
    ) -> Op[list[Share]]:
        """Public functions of `x`, given as Fourier series of one period.

        The results have scale `dealt_bits + coefficient_bits`; `x` may be a product.
        """

    @abc.abstractmethod
    def bits_to_ring(self, x: Share, count: int) -> Op[Share]:
        """`count` packed bits as 0 and 1 in the ring, at scale 0."""

    # -- comparisons -----------------------------------------------------------------------------------------

    @declared(defaults.is_negative_cost)
    def is_negative(self, x: Share, bits: int = 64) -> Op[Share]:
        """Packed bits `x < 0` of a one-dimensional `x` with |x| < 2^(bits-1)."""
        return defaults.is_negative(self, x, bits)

    @declared(defaults.is_zero_cost)
    def is_zero(self, x: Share) -> Op[Share]:
        """Packed bits `x == 0` of a one-dimensional `x`."""
        return defaults.is_zero(self, x)

    # -- moving rows -----------------------------------------------------------------------------------------

    @declared(defaults.shuffle_cost)
    def shuffle(self, columns: Sequence[Share]) -> Op[list[Share]]:
        """Permute the last axis of all columns with one permutation that nobody knows."""
        return defaults.shuffle(self, columns)


def in_memory(shape: Shape) -> Words:
    """Words that are not set, in memory."""
    return np.empty(shape, dtype=np.uint64)


__all__ = [
    "BITS",
    "WORD_BYTES",
    "Z64",
    "Cost",
    "Exchange",
    "Op",
    "Product",
    "Protocol",
    "Received",
    "Round",
    "Shape",
    "Share",
    "T",
    "align",
    "declared",
    "gather",
    "require_full",
    "require_one_dimension",
]  # fmt: skip
