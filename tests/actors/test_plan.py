"""Plans: types, bounds, hash-consing, and a form that nobody can bend."""

from __future__ import annotations

import functools
import tracemalloc

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.actors.estimate import explain
from tercet.errors import PlanError
from tercet.plans import CLASSES, Builder, Disclosure, Form, Type, concatenate, parsing
from tercet.plans.drawing import to_mermaid
from tercet.plans.parsing import MOST_ENDS, read_plan, with_shape
from tercet.plans.passes import optimise
from tercet.plans.plan import pack_plan
from tests.packed_plans import packed_plan


def ring(*shape, scale=8, limit=2.0**20):
    return Type(Form.RING, shape, scale, limit)


@pytest.fixture
def b():
    return Builder("test", tile_rows=64)


@pytest.fixture
def x(b):
    return b.input("x", ring(3, 100))


@pytest.fixture
def v(b):
    return b.input("v", ring(100))


# -- types ---------------------------------------------------------------------------------------------------


def test_shapes_and_scales(b, x, v):
    assert (x + v).shape == (3, 100)
    assert (x * v).scale == 16
    assert (x @ b.input("w", ring(100, 5))).shape == (3, 5)
    assert x.dot(x).shape == (3, 3)
    assert v.dot(x).shape == (3,)
    assert v.dot(v).shape == ()
    assert x.sum().shape == (3,)
    assert x.sum_columns().shape == (100,)
    assert x.select([2, 0]).shape == (2, 100)
    assert concatenate([x, x.select([1])]).shape == (4, 100)
    assert x.slice(5, 9).shape == (3, 4)
    assert x.sum().column().shape == (3, 1)
    assert x.at_scale(12).scale == 12
    assert x.shifted(3).scale == 11
    assert (x * v).rescale(8).scale == 8
    assert (v < 0).type.form is Form.BITS
    assert (v < 0).to_ring().type == ring(100, scale=0, limit=1.0)


def test_limits(b, v):
    assert (v + v).type.limit == 2.0**21
    assert (v * v).type.limit == 2.0**40
    assert v.sum().type.limit == 100 * 2.0**20
    assert v.at_scale(10).type.limit == 2.0**22
    assert v.bounded(1, "known").type.limit == 2.0**8
    assert v.bounded(2.0**40, "no news").type.limit == 2.0**20
    assert (v * 3).type.limit == 3 * 2.0**20
    assert (v * v).rescale(8).type.limit == 2.0**32 + 3


def test_products_get_their_round_where_it_is_needed(b, v):
    v = v.bounded(2.0, "for this test")
    product = v * v
    assert product.type.product
    assert (product + v * v).type.product
    assert product.sum().type.product
    assert (product * 3).type.product
    assert not product.rescale(8).type.product
    assert not any(node.kind == "reduce" for node in b.nodes)
    (product * v).sum()
    product.sum().open("a sum")
    assert [node.kind for node in b.nodes].count("reduce") == 2


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda b, x, v: v * v * v * v,
            r"node 6 \(mul\): values up to 2\^80.0 ring units do not fit 63 bits",
        ),
        (lambda b, x, v: (v * v).at_scale(40), r"node 3 \(shift_up\): values up to 2\^64.0"),
        (lambda b, x, v: b.input("big", ring(1 << 45, limit=1)), "is too large"),
        (lambda b, x, v: b.input("big", ring(5, limit=2.0**63)), r"node 2 \(input\): values up to 2\^63.0"),
        (lambda b, x, v: b.input("nan", ring(5, limit=float("nan"))), "values up to nan"),
        (lambda b, x, v: b.input("less", ring(5, limit=-1.0)), "values up to -1.0"),
        (lambda b, x, v: b.input("less", ring(-5)), r"a value of shape \(-5,\) cannot exist"),
        (lambda b, x, v: b.input("who", ring("n")), "how many rows 'n' are"),
        (lambda b, x, v: b.input("scale", ring(5, scale=5000)), "is too large"),
        (lambda b, x, v: (v.at_scale(30) * v.at_scale(29)).rescale(20), "do not fit 63 bits"),
        (lambda b, x, v: x + b.input("w", ring(99)), r"shapes \(3 x 100\) and \(99\) do not fit together"),
        (lambda b, x, v: b.apply("add", v, v.at_scale(9)), "scales 8 and 9 differ"),
        (lambda b, x, v: v.open(""), "has to say what it discloses"),
        (lambda b, x, v: match(b) and b.random_words(2, "both"), "of a number that is not known yet"),
        (lambda b, x, v: b.apply("nonsense", v), "unknown kind of node 'nonsense'"),
        (lambda b, x, v: x < 0, "one axis"),
        (lambda b, x, v: x.select([3]), "no such column"),
        (lambda b, x, v: x.slice(90, 101), "rows 90 to 101"),
        (lambda b, x, v: x.reshape(300), "keeps its last axis"),
        (lambda b, x, v: x.reshape(7, 100), "cannot become"),
        (lambda b, x, v: v.at_scale(4), "would cut bits"),
        (lambda b, x, v: b.apply("open", v), "attribute 'why' is missing or unknown"),
        (lambda b, x, v: b.apply("open", v, why="x", more=1), "attribute 'more' is missing or unknown"),
        (lambda b, x, v: b.apply("truncate", v, bits=np.int64(8)), "attribute 'bits' is .*of type int64"),
        (lambda b, x, v: b.apply("truncate", v, bits=True), "attribute 'bits' is True, of type bool"),
        (lambda b, x, v: v + Builder("other").input("v", ring(100)), "two different plans"),
        (lambda b, x, v: (v < 0).reveal("bits", to="me"), "use to_ring"),
    ],
)
def test_what_cannot_be_is_refused_by_name(b, x, v, make, why):
    with pytest.raises(PlanError, match=why):
        make(b, x, v)


def test_a_label_names_the_place(b, v):
    with b.scope("outer"), b.scope("inner"), pytest.raises(PlanError, match=r"\(mul in outer/inner\)"):
        v * v * v * v


def test_a_refused_node_leaves_no_trace(b, v):
    count = len(b.nodes)
    with pytest.raises(PlanError):
        v.at_scale(70)
    assert len(b.nodes) == count


# -- hash-consing --------------------------------------------------------------------------------------------


def test_equal_operations_are_one_node(b, x, v):
    count = len((x + v).builder.nodes)
    with b.scope("elsewhere"):
        assert (x + v).ref == (x + v).ref
    assert len(b.nodes) == count
    assert b.input("x", ring(3, 100)).ref == x.ref
    assert b.random_words(2).ref != b.random_words(2).ref
    assert b.constant([1, 2]).ref == b.constant([1, 2]).ref
    assert b.constant([1, 2]).ref != b.constant([1, 2], scale=1).ref


def match(b, rows="both"):
    words = Type(Form.WORDS, (2, 50))
    lists = [b.input(name, words).open("names") for name in ("a", "b")]
    return b.apply("match", *lists, rows=rows)


def test_symbols(b, v):
    matched = match(b)
    assert match(b).ref == matched.ref
    assert b.maxima == {"both": 50}
    taken = b.apply("take", b.input("t", ring(3, 50)), matched, table=1)
    assert taken.shape == (3, "both")
    assert taken.sum().type.limit == 50 * 2.0**20
    with pytest.raises(PlanError, match="two nodes would say how many rows 'both' are"):
        b.apply("match", b.input("a", Type(Form.WORDS, (2, 50))).open("alone"), rows="both")


def test_disclosures_list_everything(b, x, v):
    assert b.plan().disclosures() == []
    v.open("the values")
    match(b)
    x.reveal("x", to="analyst")
    b.apply("sort", v, bits=30)
    v.store("kept")
    assert b.plan().disclosures() == [
        Disclosure("the values", "the nodes", "100"),
        Disclosure("names", "the nodes", "2 x 50"),
        Disclosure("names", "the nodes", "2 x 50"),
        Disclosure("the number of rows that match", "the nodes", "1"),
        Disclosure("x", "analyst", "3 x 100"),
        Disclosure("comparisons of shuffled rows, a random order", "the nodes", "100"),
    ]


def test_reveals_say_their_class():
    b = Builder("p")
    x = b.input("x", Type(Form.RING, (100,), 8, 2.0**20))
    for kind in CLASSES:
        x.reveal(kind, to="ann", kind=kind)
    x.reveal("by hand", to="ann")
    plan = b.plan()
    assert [told.kind for told in plan.disclosures()] == [*CLASSES, ""]
    assert [str(told) for told in plan.disclosures()][-2:] == [
        "rows (100, rows) to ann",
        "by hand (100) to ann",
    ]
    again = read_plan(plan.to_bytes())
    assert again.disclosures() == plan.disclosures()
    assert again.digest() == plan.digest()
    assert optimise(plan).disclosures() == plan.disclosures()
    assert "discloses: check (100, check) to ann" in to_mermaid(plan)
    assert "  - check (100, check) to ann" in str(explain(plan))


@pytest.mark.parametrize("kind", ["", "figures", "\0", "x" * 100])
def test_classes_that_do_not_exist_are_refused(kind):
    b = Builder("p")
    x = b.input("x", Type(Form.RING, (100,), 8, 2.0**20))
    with pytest.raises(PlanError, match=r"there is no class of disclosures .* say one of check, count"):
        b.apply("reveal", x, name="x", to="ann", kind=kind)


def test_a_class_of_another_type_is_refused():
    b = Builder("p")
    with pytest.raises(PlanError, match="attribute 'kind' is 1, of type int"):
        b.apply("reveal", b.input("x", Type(Form.RING, (1,), 8, 1.0)), name="x", to="ann", kind=1)


def test_the_class_is_part_of_what_parties_compare():
    def digest(kind):
        b = Builder("p")
        b.input("x", Type(Form.RING, (100,), 8, 2.0**20)).reveal("x", to="ann", kind=kind)
        return b.plan().digest()

    assert len({digest(kind) for kind in (*CLASSES, "")}) == 6


# -- the form ------------------------------------------------------------------------------------------------


@pytest.fixture
def plan(example):
    return example(100).plan


def test_round_trip(plan):
    again = read_plan(plan.to_bytes())
    assert again.nodes == plan.nodes
    assert [node.label for node in again.nodes] == [node.label for node in plan.nodes]
    assert (again.name, again.maxima, again.tile_rows) == (plan.name, plan.maxima, plan.tile_rows)
    assert again.digest() == plan.digest()


def test_the_digest_is_stable_and_tells_plans_apart(example):
    assert example(100).plan.digest() == example(100).plan.digest()
    assert len({example(rows).plan.digest() for rows in (98, 99, 100)}) == 3
    b = Builder("pinned", tile_rows=64)
    (b.input("x", ring(10)) * 3).reveal("r", to="me")
    assert b.plan().digest().hex()[:12] == "5e6114fdded5"


def test_other_formats_are_refused():
    with pytest.raises(PlanError, match="has format 1, this node reads 2"):
        read_plan(msgpack.packb([1, "", [], 64]))
    with pytest.raises(PlanError, match="multiple of 64"):
        read_plan(packed_plan([], tile_rows=65))
    with pytest.raises(PlanError, match="malformed"):
        read_plan(b"")
    with pytest.raises(PlanError, match="does not exist before it"):
        read_plan(packed_plan([["open", [[0, 0]], {"why": "x"}, ""]]))


X = ["input", [], {"handle": "x", "form": "ring", "shape": [4], "scale": 0, "limit": 1.0}, ""]
Y = ["store", [[0, 0]], {"handle": "y"}, ""]


def numbered(*numbers):
    """The body of a plan that reads and stores values under handles of these numbers."""
    nodes = [[kind, args, attributes | {"handle": number}, label]
             for (kind, args, attributes, label), number in zip((X, Y), numbers, strict=True)]  # fmt: skip
    return msgpack.packb(["p", nodes, 64])


@pytest.mark.parametrize(
    ("body", "handles", "why"),
    [
        (numbered(0, 1), ["x"], r"node 1 \(store\) has no handle"),
        (numbered(0, 1), ["x", "y", "z"], "has 3 handles and names 2 of them"),
        (numbered(0, 1), ["x", "x"], "names a handle twice"),
        (numbered(0, 1), ["x", ""], "'' is no handle"),
        (numbered(0, 1), ["x", "\0kept"], r"node 1 \(store\): '\\x00kept' is no handle"),
        (numbered(0, 1), ["x", "y" * 1000], "is no handle"),
        (numbered(0, 1), ["x", 7], "its handles are none"),
        (numbered(0, 1), ["x", b"y"], "its handles are none"),
        (numbered(0, 1), ["x", []], "its handles are none"),
        (numbered(0, 1), ["x", ["y"]], "malformed"),
        (numbered(0, 1), ["x"] * (MOST_ENDS + 1), "names 16385 handles"),
        (numbered(1, 0), ["x", "y"], "handle 1, which is not the next one"),
        (numbered(0, 2), ["x", "y"], "handle 2, which is not the next one"),
        (numbered(0, -1), ["x", "y"], "handle -1, which is not the next one"),
        (numbered(0, True), ["x"], "handle True, which is not the next one"),
        (numbered(0, "1"), ["x", "y"], "handle '1', which is not the next one"),
        (numbered(0, None), ["x"], "handle None, which is not the next one"),
        ([1, 2], ["x"], "it has no body"),
        ("text", ["x"], "it has no body"),
        (None, [], "it has no body"),
    ],
)
def test_handles_that_are_not_what_the_body_names_are_refused(body, handles, why):
    read_plan(pack_plan(numbered(0, 1), ["x", "y"]))  # so the shape is known
    with pytest.raises(PlanError, match=why):
        read_plan(msgpack.packb([2, body, handles]))


@pytest.mark.parametrize("packed", [b"\x93%b\xc4\x00\x90", b"\x93\x02\xc4\x00\x91%b", b"%b"])
def test_lists_in_the_place_of_anything_else_are_not_unpacked(packed):
    lists = b"\xdc\x04\x00" + (b"\xdc\x20\x00" + b"\x90" * (1 << 13)) * (1 << 10)
    tracemalloc.start()
    with pytest.raises(PlanError, match="malformed"):
        read_plan(packed % lists)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 25


def test_what_comes_after_a_plan_is_refused():
    packed = pack_plan(numbered(0, 1), ["x", "y"])
    for more in (b"\0", b"\xc0", packed):
        with pytest.raises(PlanError, match="malformed"):
            read_plan(packed + more)


def test_plans_that_differ_in_handles_have_their_shape_in_common():
    one, other = (read_plan(packed_plan([X, [*Y[:2], {"handle": name}, ""]])) for name in ("y", "z"))
    assert one.apart_from_handles is other.apart_from_handles
    assert [plan.nodes[1].get("handle") for plan in (one, other)] == ["y", "z"]
    assert one.digest() != other.digest()
    assert one.nodes[0] == other.nodes[0]
    same = read_plan(packed_plan([X, [*Y[:2], {"handle": "x"}, ""]]))
    assert same.apart_from_handles is not one.apart_from_handles
    assert [node.get("handle") for node in same.nodes] == ["x", "x"]


def test_a_plan_that_was_built_here_has_the_shape_of_one_that_was_read():
    def built(handle):
        b = Builder("alike", tile_rows=64)
        b.input("x", ring(10)).store(handle)
        return b.plan()

    ours = with_shape(built("mine"))
    assert (ours.nodes, ours.digest()) == (built("mine").nodes, built("mine").digest())
    theirs = read_plan(built("theirs").to_bytes())
    assert theirs.apart_from_handles is ours.apart_from_handles
    assert theirs.nodes == built("theirs").nodes


@pytest.mark.parametrize(
    "other",
    [
        [[*X[:2], X[2] | {"limit": 1}, ""], Y],  # equal to X, and yet another plan
        [[*X[:2], X[2] | {"limit": 1.0000000000000002}, ""], Y],
        [[*X[:3], "label"], Y],
        [X, X, Y],
        [X, Y, ["store", [[0, 0]], {"handle": "y"}, ""]],
        [X, ["store", [[0, 0]], {"handle": "x"}, ""]],
        [["input", [], dict(reversed(X[2].items())), ""], Y],
    ],
)
def test_no_plan_is_taken_for_another_that_looks_like_it(other, monkeypatch):
    def fresh(packed):
        monkeypatch.setattr(parsing, "_shapes", parsing._Shapes())
        return read_plan(packed)

    both = [packed_plan([X, Y]), packed_plan(other)]
    alone = [fresh(packed) for packed in both]
    for first in (0, 1):
        fresh(both[first])
        second = read_plan(both[1 - first])
        assert second.nodes == alone[1 - first].nodes
        assert second.shape.nodes == alone[1 - first].shape.nodes
        assert [node.label for node in second.nodes] == [node.label for node in alone[1 - first].nodes]
        assert second.digest() == alone[1 - first].digest()
    assert alone[0].digest() != alone[1].digest()


def test_what_a_node_keeps_for_itself_has_no_shape_by_which_members_read_it():
    b = Builder("rest", tile_rows=64)
    b.input("\0checkpoint scores", ring(10)).store("y")
    ours = with_shape(b.plan())
    body, handles = ours.to_body()
    with pytest.raises(PlanError, match="is no handle"):
        read_plan(pack_plan(body, handles))
    theirs = read_plan(pack_plan(body, ["x", "y"]))
    assert [node.get("handle") for node in theirs.nodes] == ["x", "y"]
    assert ours.nodes[0].get("handle") == "\0checkpoint scores"


def test_numbers_that_equal_known_ones_are_of_the_known_type(b):
    v, w = b.input("v", ring(10)), b.input("w", ring(10))
    known = b.append("truncate", [v.ref], {"bits": 1})
    for odd in (True, 1.0):
        assert b.append("truncate", [v.ref], {"bits": odd}) == known
        alike = b.append("truncate", [w.ref], {"bits": odd})
        assert type(b.nodes[alike].get("bits")) is int
    with pytest.raises(PlanError, match="attribute 'bits' is True"):
        b.append("truncate", [b.input("u", ring(20)).ref], {"bits": True})


def test_shapes_are_remembered_up_to_a_number_of_bytes(monkeypatch):
    monkeypatch.setattr(parsing, "_shapes", parsing._Shapes())
    monkeypatch.setattr(parsing, "MOST_REMEMBERED", 1000)
    for number in range(50):
        read_plan(packed_plan([X, Y], f"plan {number}"))
    assert sum(map(len, parsing._shapes.known)) <= 1000
    assert (left := len(parsing._shapes.known)) > 3
    read_plan(packed_plan([X, Y], "x" * 600))  # which would push out all others
    assert len(parsing._shapes.known) == left
    monkeypatch.setattr(parsing, "MOST_REMEMBERED", 1 << 20)
    monkeypatch.setattr(parsing, "MOST_SHAPES", 9)
    for number in range(50):
        read_plan(packed_plan([X, Y], f"plan {number}"))
    assert len(parsing._shapes.known) == 9


@functools.cache
def packed_example():
    import importlib.util
    from pathlib import Path

    spec = importlib.util.spec_from_file_location("plans", Path(__file__).with_name("conftest.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.everything(70).plan.to_bytes()


@settings(deadline=None)
@given(st.data())
def test_mutated_bytes_only_ever_raise_plan_errors(data):
    packed = bytearray(packed_example())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(packed) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert", "repeat"])):
            case "set":
                packed[place] = data.draw(st.integers(0, 255))
            case "cut":
                del packed[place : place + data.draw(st.integers(1, 9))]
            case "insert":
                packed[place:place] = data.draw(st.binary(min_size=1, max_size=9))
            case "repeat":
                packed[place:place] = packed[place : place + 20]
        if not packed:
            break
    read(bytes(packed))


plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=9)
)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)


@settings(deadline=None)
@given(st.data())
def test_mutated_nodes_only_ever_raise_plan_errors(data):
    version, body, handles = msgpack.unpackb(packed_example(), raw=False)
    name, nodes, tile_rows = msgpack.unpackb(body, raw=False)
    node = data.draw(st.sampled_from(nodes))
    match data.draw(st.sampled_from(["attribute", "kind", "args", "swap"])):
        case "attribute" if node[2]:
            node[2][data.draw(st.sampled_from(sorted(node[2])))] = data.draw(values)
        case "kind":
            node[0] = data.draw(st.sampled_from(nodes))[0]
        case "args":
            node[1] = data.draw(values)
        case _:
            node[2] = data.draw(st.sampled_from(nodes))[2]
    read(msgpack.packb([version, msgpack.packb([name, nodes, tile_rows]), handles]))


def read(packed):
    try:
        plan = read_plan(packed)
    except PlanError:
        return
    assert read_plan(plan.to_bytes()).digest() == plan.digest()
    plan.disclosures()


def test_constants_are_exact(b):
    numbers = np.array([0.5, -1.25, 3])
    (kind,) = b.nodes[b.constant(numbers, scale=2).ref[0]].types
    assert kind == Type(Form.PUBLIC, (3,), 2, 12.0)


def test_a_plan_of_countless_tiles_is_refused():
    b = Builder("large", tile_rows=64)
    b.random_words(1 << 30).open("noise")
    with pytest.raises(PlanError, match="more than 65536 tiles of 64"):
        read_plan(b.plan().to_bytes())
