"""What protocols compute with and how their operations talk: shares, rounds, costs.

A protocol operation is a generator of rounds. It yields a `Round`, which says what it sends to each peer and
which shapes it expects from each, and is resumed with what arrived; it never waits, opens a socket or reads a
clock. So an operation reads like its paper, can be run by a lockstep driver in a test or by the scheduler
over a network, and several operations can share their rounds (`gather`).

Every party runs the same code and yields the same number of rounds, also where it has nothing to say in one
of them; that is what makes round counts comparable and frames of different parties match.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Self, TypeVar, cast
from typing import Protocol as Interface

import attrs
import numpy as np

from tercet.errors import ProtocolError
from tercet.protocols.domains import Domain, Words

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


class Exchange(Round):
    """Words for other members of this party, by member, from an operation that all of them run together.

    Every member yields as many, and gets what each other member, and itself, had for it: `send` has arrays
    for those that get any, and whoever gets none waits for that too. No peer hears of it. See `together`.
    """


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
        return type(self)(self.domain, data, self.scale if scale is None else scale)

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
        step = next(operation) if got is None else operation.send(got)
    except StopIteration as stop:
        results[index] = stop.value
        return
    if isinstance(step, Exchange):
        # Members may get to exchanges of several operations in different order, and these have no names.
        raise ProtocolError("operations that members of a party run together cannot go side by side")
    waiting[index] = step


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


def require_alike(x: Share, y: Share) -> None:
    """Raise ProtocolError unless two sharings can be added: of one kind, domain and scale."""
    if type(x) is not type(y):
        raise ProtocolError("a product and a full sharing cannot be added; reduce the product first")
    if x.domain is not y.domain or x.scale != y.scale:
        raise ProtocolError(
            f"a sharing in {x.domain} of scale {x.scale} and one in {y.domain} of scale {y.scale} cannot "
            "be added; bring them to one domain and scale first"
        )
