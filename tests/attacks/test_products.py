"""Products before their round: what parties hold of them tells about the factors, so it must not leave them.

Under `shamir` a raw product is a point on a polynomial of twice the degree, whose other coefficients are
not random: a party that sees all points learns far more than the product.
"""

from __future__ import annotations

import attrs
import numpy as np
import pytest

from tercet.client import client
from tercet.client.cluster import ClusterOptions, open_cluster
from tercet.errors import PlanError, ProtocolError
from tercet.plans import Builder, Form, Type
from tercet.plans.kinds import KINDS
from tercet.plans.local_kinds import Concatenate
from tercet.plans.parsing import read_plan
from tests.packed_plans import packed_plan

X = Type(Form.RING, (1, 24), 0, 1.0)
WHY = "product that has not had its round"

ENDS = {
    "open": {"why": "the number of the sick"},
    "reveal": {"name": "sum", "to": "analyst"},
    "store": {"handle": "kept"},
    "checkpoint": {"point": 0, "name": "kept"},
    "concatenate": {},
    "is_zero": {},
    "shuffle": {},
}


def packed(*nodes):
    """A plan as bytes, with two inputs, their product over rows, and what else is asked for."""
    inputs = [
        ["input", [], {"handle": name, "form": "ring", "shape": [1, 24], "scale": 0, "limit": 1.0}, ""]
        for name in ("t", "mine")
    ]
    dot = ["dot", [[0, 0], [1, 0]], {}, ""]
    return packed_plan([*inputs, dot, *nodes], "sum of squares")


@pytest.mark.parametrize("kind", sorted(ENDS))
def test_a_raw_product_is_read_by_nothing_that_takes_full_sharings(kind):
    with pytest.raises(PlanError, match=WHY):
        read_plan(packed([kind, [[2, 0]], ENDS[kind], ""]))


@pytest.mark.parametrize("local", ["add", "reshape", "select", "append_row", "bounded", "move_point"])
def test_local_steps_do_not_make_one_whole(local):
    """What is made of a product without a round is one still."""
    attributes = {
        "reshape": {"shape": [1, 1]},
        "select": {"indices": [0]},
        "append_row": {"units": 0},
        "bounded": {"magnitude": 1.0, "why": "so she says"},
        "move_point": {"bits": 0},
    }
    args = [[2, 0], [2, 0]] if local == "add" else [[2, 0]]
    step = [local, args, attributes.get(local, {}), ""]
    with pytest.raises(PlanError, match=WHY):
        read_plan(packed(step, ["open", [[3, 0]], {"why": "x"}, ""]))


def test_a_stack_with_a_product_in_it_is_refused():
    zero = ["input", [], {"handle": "zero", "form": "ring", "shape": [1, 1], "scale": 0, "limit": 1.0}, ""]
    with pytest.raises(PlanError, match=WHY):
        read_plan(packed(zero, ["concatenate", [[3, 0], [2, 0]], {}, ""]))


def test_every_kind_says_whether_it_takes_products():
    """Nothing of a product that its kind does not take gets past the builder, whatever the kind."""
    b = Builder("test")
    x = b.input("x", Type(Form.RING, (4, 4), 0, 1.0))
    product = x * x
    for name, kind in KINDS.items():
        if not kind.takes_products and name not in ("mul", "input", "constant", "random"):
            with pytest.raises(PlanError):
                b.append(name, [product.ref], {})


@pytest.mark.parametrize("protocol", ["replicated", "shamir", "rep4"])
@pytest.mark.parametrize("end", ["open", "reveal", "store"])
async def test_not_even_a_wrong_type_lets_one_out(end, protocol, monkeypatch):
    """Should a kind be typed wrongly, what runs it stops: here one that calls a product whole."""
    plain = Concatenate.infer
    monkeypatch.setattr(client, "optimise", lambda plan: plan)
    monkeypatch.setattr(Concatenate, "takes_products", True)
    monkeypatch.setattr(
        Concatenate, "infer", lambda *args: [attrs.evolve(one, product=False) for one in plain(*args)]
    )
    monkeypatch.setattr(Concatenate, "run", lambda self, node, protocol, args, context: args[0])
    async with open_cluster(ClusterOptions(protocol=protocol, timeout_s=60.0)) as cluster:
        await cluster.client.put("x", X, np.ones((1, 24), dtype=np.uint64))
        b = Builder("test")
        x = b.input("x", X)
        product = b.append("dot", [x.ref, x.ref], {})
        whole = b.append("concatenate", [(product, 0)], {})
        b.append(end, [(whole, 0)], ENDS[end])
        with pytest.raises(ProtocolError, match="round"):
            await cluster.client.run(b.plan())
