"""Orders of shuffles: those that somebody knows, or that come again, are found."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.errors import ProtocolError
from tercet.protocols import kernels, shuffling
from tercet.protocols.base import declared
from tercet.protocols.prg import Stream
from tercet.protocols.replicated import Replicated
from tercet.testing.permutations import ROWS, check_permutations
from tercet.testing.watch import watched


class Moves(Replicated):
    """Moves rows by an order of its own, in the place of a shuffle."""

    @declared(lambda self, columns: self.free())
    def shuffle(self, columns):
        yield from ()
        order = self.order(columns[0].shape[-1])
        return [self.take(column, order) for column in columns]


class LeavesRows(Moves):
    def order(self, rows):
        return np.arange(rows)


class TurnsRows(Moves):
    def order(self, rows):
        return (np.arange(rows) + int(self.draw(0, self.tag(), "turn").words((1,))[0]) % rows) % rows

    def draw(self, component, tag, purpose):
        return Stream(bytes(32), f"{tag}{purpose}".encode())


class HasAPublicOrder(Moves):
    def order(self, rows):
        return kernels.permutation(Stream(bytes(32), self.tag().encode()).words((rows,)))


class HasOneOrder(Replicated):
    def draw(self, component, tag, purpose):
        return Stream(self._component_keys[component % 3], purpose.encode())


@pytest.mark.parametrize(
    ("defect", "complaint"),
    [
        (LeavesRows, "order that everybody knows"),
        (TurnsRows, "order that everybody knows"),
        (HasAPublicOrder, "party 0 knows the order by its keys alone"),
        (HasOneOrder, "two operations of one session move rows alike"),
    ],
)
def test_an_order_that_is_none_is_found(defect, complaint):
    with pytest.raises(ProtocolError, match=complaint):
        check_permutations(watched(defect), parties=3)


@pytest.mark.parametrize("hop", range(3))
def test_a_hop_that_moves_nothing_is_found(monkeypatch, hop):
    arrange = shuffling._arrange

    def leaves(protocol, dealer, tag, held):
        rows, order = yield from arrange(protocol, dealer, tag, held)
        return rows, np.arange(len(rows[0])) if dealer == (protocol.dealer + hop) % 3 else order

    monkeypatch.setattr(shuffling, "_arrange", leaves)
    with pytest.raises(ProtocolError, match=r"party \d knows the order"):
        check_permutations(watched(Replicated), parties=3)


def test_rows_that_come_to_few_places_are_found():
    """Halves of the rows are shuffled apart: no two orders are related, but no row changes its half."""

    class Halves(Replicated):
        def shuffle(self, columns):
            half = columns[0].shape[-1] // 2
            first = yield from super().shuffle([c.like(c.data[..., :half]) for c in columns])
            second = yield from super().shuffle([c.like(c.data[..., half:]) for c in columns])
            return [
                a.like(np.concatenate([a.data, b.data], axis=-1)) for a, b in zip(first, second, strict=True)
            ]

    assert ROWS % 2 == 0
    with pytest.raises(ProtocolError, match="do not come to all places alike"):
        check_permutations(watched(Halves), parties=3)
