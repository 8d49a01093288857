"""What protocols inherit is right on any core: here the replicated one, stripped of what it does faster."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tercet.protocols.base import Protocol
from tercet.protocols.defaults import merge_exchange
from tercet.protocols.replicated import Replicated
from tercet.testing.operations import OPERATIONS
from tercet.testing.protocols import check_secrecy, check_values
from tercet.testing.watch import watched

INHERITED = (
    "mul", "matmul_local", "dot_local", "truncate", "is_negative", "is_zero", "shuffle",
)  # fmt: skip
Bare = type("Bare", (Replicated,), {name: vars(Protocol)[name] for name in INHERITED})


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_values_and_costs(operation):
    for dealer in range(3):
        check_values(Bare, operation, parties=3, dealer=dealer, sizes=(0, 1, 2, 65))


@pytest.mark.parametrize("name", ["truncate", "mul and truncate", "is_zero"])
def test_secrecy(name):
    operation = next(one for one in OPERATIONS if one.name == name)
    check_secrecy(watched(Bare), operation, parties=3)


@pytest.mark.parametrize("rows", range(11))
def test_the_network_sorts_all_zeros_and_ones(rows):
    """By the 0-1 principle, it then sorts everything. No stage compares a place twice."""
    bits = np.array(list(itertools.product([0, 1], repeat=rows)), dtype=np.int64).reshape(2**rows, rows)
    for low, high in merge_exchange(rows):
        assert len({*low, *high}) == low.size + high.size
        bits[:, low], bits[:, high] = (
            np.minimum(bits[:, low], bits[:, high]),
            np.maximum(bits[:, low], bits[:, high]),
        )
    assert np.all(np.diff(bits, axis=1) >= 0)
