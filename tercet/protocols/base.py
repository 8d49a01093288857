"""The share interface: what a protocol gives to the rest of Tercet, and how its operations talk.

A protocol operation is a generator of rounds. It yields a `Round`, which says what it sends to each peer and
which shapes it expects from each, and is resumed with what arrived; it never waits, opens a socket or reads a
clock. So an operation reads like its paper, can be run by a lockstep driver in a test or by the scheduler
over a network, and several operations can share their rounds (`gather`).

Every party runs the same code and yields the same number of rounds, also where it has nothing to say in one
of them; that is what makes round counts comparable and frames of different parties match.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, ClassVar, Self, TypeVar, cast
from typing import Protocol as Interface

import attrs
import numpy as np

from tercet.errors import PrivacyError, ProtocolError
from tercet.protocols.domains import BITS, WORD_BYTES, Z64, Domain, Words
from tercet.protocols.fourier import Series
from tercet.protocols.prg import Stream, derive_key

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

Shape = tuple[int, ...]
Received = Mapping[int, Sequence[Words]]


@attrs.frozen(eq=False)
class Round:
    """One network round of one party: arrays to send, and shapes to receive, by peer.

    Arrays travel without copies: what was sent is never written to again, and what arrives is read-only.
    """

    send: Mapping[int, Sequence[Words]] = attrs.field(factory=dict)
    recv: Mapping[int, Sequence[Shape]] = attrs.field(factory=dict)


Op = Generator[Round, Received, T]
"""An operation in progress: yields rounds, is sent what arrived, returns its result."""


@attrs.frozen(eq=False)
class Share:
    """One party's part of a secret value.

    `data` has shape `(words held, *shape)`; rows are the last axis. `scale` is the number of fractional bits.
    """

    domain: Domain
    data: Words
    scale: int = 0

    @property
    def shape(self) -> Shape:
        """Shape of the secret value."""
        return self.data.shape[1:]

    @property
    def size(self) -> int:
        """Number of elements of the secret value."""
        return math.prod(self.shape)

    def like(self, data: Words, *, scale: int | None = None) -> Self:
        """A value of the same kind with other data."""
        return attrs.evolve(self, data=data, scale=self.scale if scale is None else scale)

    def map(self, function: Callable[[Words], Words]) -> Self:
        """Apply a function that moves elements (slices, reshapes) to every component."""
        return self.like(np.stack([function(component) for component in self.data]))


class Product(Share):
    """The result of a local multiplication, before its round.

    It can be added, summed over rows and scaled without talking, but has to pass `Protocol.reduce`,
    `truncate` or `fourier` before it is multiplied again. In replicated sharing it is a 3-of-3 additive
    sharing, in Shamir's a sharing of double degree.
    """


@attrs.frozen
class Cost:
    """What an operation costs: network rounds, and bytes of payload sent by each party.

    `a + b` is a after b; `a | b` is both in the same rounds.
    """

    rounds: int
    sent: tuple[int, ...]

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.rounds + other.rounds, self._sum(other))

    def __or__(self, other: Cost) -> Cost:
        return Cost(max(self.rounds, other.rounds), self._sum(other))

    def _sum(self, other: Cost) -> tuple[int, ...]:
        return tuple(a + b for a, b in zip(self.sent, other.sent, strict=True))

    @property
    def total(self) -> int:
        """Bytes sent by all parties together."""
        return sum(self.sent)


class _Declared(Interface):
    declared_cost: Callable[..., Cost]


def declared(cost: Callable[..., Cost]) -> Callable[[F], F]:
    """Attach to an operation the function that computes its cost from the same arguments."""

    def attach(operation: F) -> F:
        cast("_Declared", operation).declared_cost = cost
        return operation

    return attach


def gather(*operations: Op[Any]) -> Op[list[Any]]:
    """Run operations side by side: step k of all of them shares one round. Returns their results in order."""
    results: list[Any] = [None] * len(operations)
    waiting: dict[int, Round] = {}
    for index, operation in enumerate(operations):
        _advance(operation, None, index, waiting, results)
    while waiting:
        merged = Round(
            _concatenate(r.send for r in waiting.values()), _concatenate(r.recv for r in waiting.values())
        )
        got = yield merged
        current, waiting = waiting, {}
        cursor = dict.fromkeys(got, 0)
        for index, awaited in current.items():
            mine: dict[int, Sequence[Words]] = {}
            for peer, shapes in awaited.recv.items():
                start = cursor[peer]
                cursor[peer] = start + len(shapes)
                mine[peer] = got[peer][start : cursor[peer]]
            _advance(operations[index], mine, index, waiting, results)
    return results


def _advance(
    operation: Op[Any], got: Received | None, index: int, waiting: dict[int, Round], results: list[Any]
) -> None:
    try:
        waiting[index] = next(operation) if got is None else operation.send(got)
    except StopIteration as stop:
        results[index] = stop.value


def _concatenate(parts: Any) -> dict[int, list[Any]]:
    merged: dict[int, list[Any]] = {}
    for part in parts:
        for peer, items in part.items():
            merged.setdefault(peer, []).extend(items)
    return merged


def align(*shares: Share) -> list[Words]:
    """The data of shares of different rank, with axes inserted so that numpy broadcasts the values."""
    rank = max(share.data.ndim for share in shares)
    return [
        share.data.reshape(share.data.shape[:1] + (1,) * (rank - share.data.ndim) + share.data.shape[1:])
        for share in shares
    ]


class Protocol(abc.ABC):
    """A secret-sharing protocol, as one party of a session sees it.

    A subclass says how values are dealt, opened, multiplied and masked; what is linear is written here once.
    Instances are cheap: the scheduler calls `bind` for every operation it starts, which names the operation's
    random streams, picks its dealer and sets how many words it may open. Nothing here does I/O, and an
    instance is used by one thread at a time.

    Arguments of the constructor: the party's index, the number of parties, and for every other party the
    session key that the two share (32 bytes, fresh for the session).
    """

    name: ClassVar[str]
    """What users write in `protocol=`."""
    held: ClassVar[int]
    """Words a party holds for each shared word."""
    sizes: ClassVar[tuple[int, ...]]
    """Numbers of parties it can run with; the first is the default."""
    words_uniform: ClassVar[bool] = True
    """Whether every 64-bit word is as likely as any other in a message, which `check_protocol` tests."""

    def __init__(self, *, party: int, parties: int, keys: Mapping[int, bytes]) -> None:
        self.party = party
        self.parties = parties
        self.keys = keys
        self.dealer = 0
        self._operation = ""
        self._drawn = 0
        self._openings = 0
        self._bound: set[str] = set()

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
        bound = copy.copy(self)
        bound._operation = operation  # noqa: SLF001
        bound._drawn = 0  # noqa: SLF001
        bound._openings = openings  # noqa: SLF001
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
        return Stream(key, f"{tag}/{purpose}".encode())

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
        return kind(domain, np.broadcast_to(np.uint64(0), (1 if product else self.held, *shape)), scale)

    def free(self) -> Cost:
        """The cost of local work."""
        return Cost(0, (0,) * self.parties)

    # -- values in and out -----------------------------------------------------------------------------------

    @classmethod
    @abc.abstractmethod
    def deal(cls, values: Words, *, domain: Domain, parties: int) -> list[list[Words]]:
        """Share `values` at their owner, with fresh randomness: for each party the arrays to send to it."""

    @classmethod
    @abc.abstractmethod
    def dealt_shapes(cls, shape: Shape, *, party: int, parties: int) -> list[Shape]:
        """The shapes of what `deal` makes for `party`, so that a receiver can check before it allocates."""

    @abc.abstractmethod
    def accept(self, parts: Sequence[Words], *, domain: Domain, shape: Shape, scale: int) -> Share:
        """The share made of what an owner dealt to this party."""

    @abc.abstractmethod
    def export(self, x: Share) -> list[Words]:
        """What this party sends to a receiver outside for `combine`: its part, and digests of others."""

    @classmethod
    @abc.abstractmethod
    def combine(cls, parts: Sequence[Sequence[Words]], *, domain: Domain, shape: Shape) -> Words:
        """The value behind all parties' exports. Raises ProtocolError if the parts contradict each other."""

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
        """The protocol behind `open`; call `open` instead, which keeps count."""

    @abc.abstractmethod
    def constant(
        self, values: Words, *, domain: Domain = Z64, scale: int = 0, product: bool = False
    ) -> Share:
        """A sharing of public values, no randomness; with `product`, as a `Product`."""

    @abc.abstractmethod
    def random(self, shape: Shape, *, domain: Domain = Z64) -> Share:
        """A sharing of uniformly random words that nobody knows. No rounds."""

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
        _require_alike(x, y)
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

    # -- products --------------------------------------------------------------------------------------------

    @abc.abstractmethod
    def mul_local(self, x: Share, y: Share) -> Product:
        """Element-wise product before its round. Shapes broadcast."""

    @abc.abstractmethod
    def matmul_local(self, x: Share, y: Share) -> Product:
        """Matrix product `(m, k) @ (k, n)` before its round."""

    @abc.abstractmethod
    def dot_local(self, x: Share, y: Share) -> Product:
        """Product over rows before its round: `(d, n), (e, n) -> (d, e)`."""

    @abc.abstractmethod
    def reduce(self, x: Share) -> Op[Share]:
        """A full sharing of a product."""

    def mul(self, x: Share, y: Share) -> Op[Share]:
        """Element-wise product (AND for bits) as a full sharing; scales add up."""
        return self.reduce(self.mul_local(x, y))

    # -- masked openings -------------------------------------------------------------------------------------

    @abc.abstractmethod
    def truncate(self, x: Share, bits: int) -> Op[Share]:
        """`x / 2**bits`, within one unit in the last place for every |x| < 2^62; `x` may be a product."""

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

    @abc.abstractmethod
    def is_negative(self, x: Share, bits: int = 64) -> Op[Share]:
        """Packed bits `x < 0` of a one-dimensional `x` with |x| < 2^(bits-1)."""

    @abc.abstractmethod
    def is_zero(self, x: Share) -> Op[Share]:
        """Packed bits `x == 0` of a one-dimensional `x`."""

    # -- moving rows -----------------------------------------------------------------------------------------

    @abc.abstractmethod
    def shuffle(self, columns: Sequence[Share]) -> Op[list[Share]]:
        """Permute the last axis of all columns with one permutation that nobody knows."""


def require_full(operation: str, *shares: Share) -> None:
    """Raise ProtocolError if a product is among the arguments."""
    if any(isinstance(share, Product) for share in shares):
        raise ProtocolError(f"{operation} takes full sharings, not products; reduce the product first")


def require_one_dimension(x: Share, operation: str) -> None:
    """Raise ProtocolError unless `x` is a full sharing with one axis: packed results run along rows only."""
    require_full(operation, x)
    if len(x.shape) != 1:
        raise ProtocolError(
            f"{operation} takes values of one dimension, got shape {x.shape}; flatten them first"
        )


def _require_alike(x: Share, y: Share) -> None:
    if type(x) is not type(y):
        raise ProtocolError("a product and a full sharing cannot be added; reduce the product first")
    if x.domain is not y.domain or x.scale != y.scale:
        raise ProtocolError(
            f"a sharing in {x.domain} of scale {x.scale} and one in {y.domain} of scale {y.scale} cannot "
            "be added; bring them to one domain and scale first"
        )


def session_key(master: bytes, session: bytes, nonces: Sequence[bytes]) -> bytes:
    """The key that two parties use in one session, from their link's key and all parties' fresh nonces."""
    parts = (session, *nonces)
    return derive_key(master, b"session" + b"".join(len(part).to_bytes(8, "little") + part for part in parts))


__all__ = [
    "BITS",
    "WORD_BYTES",
    "Z64",
    "Cost",
    "Op",
    "Product",
    "Protocol",
    "Received",
    "Round",
    "Shape",
    "Share",
    "align",
    "declared",
    "gather",
    "require_full",
    "require_one_dimension",
    "session_key",
]  # fmt: skip
