"""Single rows as figures: ways to have a sum that the review takes for one over many rows, and is not.

The hospital lets any plan run, no single rows be revealed, and figures rest on 20 rows. Ann's plans are made
for her own client, which checks nothing; the nodes refuse them, or ask the hospital.
"""

from __future__ import annotations

import numpy as np
import pytest

from tercet import Allow
from tercet.errors import ConsentError
from tercet.plans import Form, Type, concatenate, sigmoid, stack
from tercet.plans.kinds import KINDS, Along
from tests.attacks.lake import AGES, ROWS, column, values_of

SINGLE, ASKED, FEW = "single rows", "the owner was asked", "no fewer than 20 rows"


def told(value, name="mean age"):
    value.reveal(name, to="analyst")


# -- the axis of rows --------------------------------------------------------------------------------------


def transposed(b, x, own):
    wide = x.reshape(1, ROWS)
    for _ in range(20):
        wide = wide.append_row(0.0)
    told(wide.transpose().sum())


def transposed_twice(b, x, own):
    wide = concatenate([x.reshape(1, ROWS)] * 20)
    told(wide.transpose().transpose().transpose().sum())


def rows_as_columns(b, x, own):
    told(x.reshape(ROWS, 1).sum())


def halves_as_columns(b, x, own):
    told(x.reshape(2, ROWS // 2).reshape(ROWS // 2, 2).sum())


def products_across(b, x, own):
    """`x` as the left side of a matrix product: what is summed over are its rows, by weights of ann's."""
    told(b.apply("matmul", x.reshape(1, ROWS), own.reshape(ROWS, 1)).squeeze())


def one_row_that_meets_many(b, x, own):
    """A table of one row (a slice of it) beside a hundred of ann's: a hundred rows, all one and the same."""
    told((x.slice(7, 8) + own * 0).sum())


# -- rows by their place -----------------------------------------------------------------------------------


def by_public_weights(b, x, own):
    told((x * b.constant(np.eye(ROWS)[7])).sum())


def by_weights_of_her_own(b, x, own):
    told((x * own).bounded(2.0**40, "x").sum())


def by_a_product_over_rows(b, x, own):
    told(x.reshape(1, ROWS).dot(own.reshape(1, ROWS)))


def packed_in_one_number(b, x, own):
    """Rows side by side in the digits of one sum."""
    told((x * b.constant(2.0 ** (10 * np.arange(ROWS) % 30))).bounded(2.0**40, "x").sum())


def by_thresholds_of_her_own(b, x, own):
    """A comparison with another number for each row: only one row can be above."""
    told((x + own * 1000).bounded(2.0**40, "x").is_negative().to_ring().sum())


def by_the_number_of_the_row(b, x, own):
    place = own * 0 + b.apply("count_up", x) - 7
    told((x * place.bounded(2.0**40, "x").is_zero().to_ring()).sum())


def through_a_function(b, x, own):
    """The sigmoid of numbers of which all but one are far out."""
    z = (x * 0 + own * 100 - 50).bounded(60.0, "x").at_scale(20)
    told(z.fourier(sigmoid(8.0, 1e-3), dealt_bits=20, coefficient_bits=20)[0].bounded(1.1, "x").sum())


def stacked_with_her_own(b, x, own):
    both = concatenate([x.reshape(1, ROWS), own.reshape(1, ROWS)])
    told((both.select([0]) * both.select([1])).bounded(2.0**40, "x").sum())


def delayed_until_one_is_left(b, x, own):
    told(x.delay(ROWS - 1).sum())


def running_totals(b, x, own):
    told((x.reshape(1, ROWS).cumulate() * b.constant(np.eye(ROWS)[7])).sum())


def paired_until_one_is_left(b, x, own):
    pairs = x.reshape(1, ROWS)
    for _ in range(7):
        pairs = pairs.pair_rows()
    told(pairs.select([7]).sum())


def doubled_until_they_are_many(b, x, own):
    one = x.slice(7, 8).reshape(1, 1)
    for count in (2, 4, 8, 16, 32):
        one = concatenate([one, one]).interleave(count)
    told(one.sum())


def sorted_by_her_own(b, x, own):
    ordered = b.apply_all("sort", own, x, bits=22)[1]
    told((ordered * b.constant(np.eye(ROWS)[-1])).sum())


def shuffled_with_her_own(b, x, own):
    moved, mark = b.apply_all("shuffle", x, own)
    told((moved * mark).bounded(2.0**40, "x").sum())


def taken_by_public_positions(b, x, own):
    told(x.take(b.constant([[7.0] * 40])).sum())


def taken_by_opened_positions(b, x, own):
    told(x.take(own.reshape(1, ROWS).open("numbers of my own")).sum())


def kept_by_flags_of_her_own(b, x, own):
    kept = b.apply("ones", own.open("flags of my own"), rows="kept")
    told(b.apply("take", x, kept, table=0).sum())


def kept_by_shuffled_flags_of_her_own(b, x, own):
    moved, flags = b.apply_all("shuffle", x, own)
    kept = b.apply("ones", flags.open("shuffled flags of my own"), rows="kept")
    told(b.apply("take", moved, kept, table=0).sum())


def mixed_and_shuffled(b, x, own):
    """Shuffling does not make rows alike that were told apart before."""
    (moved,) = b.apply_all("shuffle", (x * own).bounded(2.0**40, "x"))
    told(moved.sum())


REFUSED = [
    transposed,
    transposed_twice,
    rows_as_columns,
    halves_as_columns,
    products_across,
    one_row_that_meets_many,
    by_public_weights,
    by_weights_of_her_own,
    by_a_product_over_rows,
    packed_in_one_number,
    by_thresholds_of_her_own,
    by_the_number_of_the_row,
    through_a_function,
    stacked_with_her_own,
    delayed_until_one_is_left,
    running_totals,
    paired_until_one_is_left,
    doubled_until_they_are_many,
    sorted_by_her_own,
    shuffled_with_her_own,
    taken_by_public_positions,
    taken_by_opened_positions,
    kept_by_flags_of_her_own,
    kept_by_shuffled_flags_of_her_own,
    mixed_and_shuffled,
]


@pytest.fixture
async def asked(attacked):
    """Make a plan of ann's over the victim's ages and numbers of her own, a one in place 7."""
    victim = await attacked.victim(min_count=20)
    handle, kind = await attacked.deal(np.arange(ROWS) == 7)

    def make(attack):
        b = attacked.builder("figures")
        x = values_of(b, victim)
        attack(b, x.shifted(-x.scale).bounded(2.0**30, "x"), b.input(handle, kind))
        return b.plan()

    return make


async def test_no_sum_tells_a_single_row(attacked, asked):
    for attack in REFUSED:
        assert SINGLE in await attacked.why_not(asked(attack)), attack.__name__


async def test_what_is_told_apart_stays_so_when_it_is_stored(attacked, asked):
    """In two plans: the first one stores what the second one adds up."""

    def first(b, x, own):
        (x * own).bounded(2.0**40, "x").store("rows")

    kind = (await attacked.run(asked(first))).stored["rows"]
    b = attacked.builder()
    told(b.input("rows", kind).sum())
    assert SINGLE in await attacked.why_not(b.plan())
    b = attacked.builder()
    told(b.apply_all("shuffle", b.input("rows", kind))[0].sum())
    assert SINGLE in await attacked.why_not(b.plan())


# -- too few rows ------------------------------------------------------------------------------------------


def over_one(b, x, own):
    told(x.slice(7, 8).sum())


def with_and_without_one(b, x, own):
    told(x.sum(), "all")
    told(x.omit(7, 8).sum(), "all but one")


def two_parts_that_overlap(b, x, own):
    told(x.slice(0, 50).sum(), "one")
    told(x.slice(0, 51).sum(), "the other")


def cut_again(b, x, own):
    part = x.slice(0, 60)
    told(part.sum(), "one")
    told(part.slice(0, 59).sum(), "the other")


def shuffled_and_cut(b, x, own):
    (moved,) = b.apply_all("shuffle", x)
    told(moved.slice(0, 99).sum(), "all but one, drawn by lot")


async def test_no_figure_rests_on_too_few_rows(attacked, asked):
    for attack in (over_one, with_and_without_one, two_parts_that_overlap, cut_again, shuffled_and_cut):
        assert FEW in await attacked.why_not(asked(attack)), attack.__name__


async def test_rows_taken_by_their_place_are_for_the_owner_to_see(attacked, asked):
    """Two plans of one part each would tell by their difference, so the owner sees each."""

    def part(b, x, own):
        told(x.slice(0, 50).sum())

    def all_but_a_part(b, x, own):
        x.omit(0, 40).store("rest")

    for attack in (part, all_but_a_part):
        assert ASKED in await attacked.why_not(asked(attack)), attack.__name__


async def test_a_filter_that_leaves_few_out_is_held_back(attacked, asked):
    """What it keeps are many rows; those that it leaves out are few, and the total of all is known."""

    scale = column(await attacked.ann.table("ages")).schema.scale

    def make(b, x, own):
        flags = (x - 79 * 2**scale).bounded(2.0**30, "x").is_negative().to_ring()
        flags, moved = b.apply_all("shuffle", flags, x)
        kept = b.apply("ones", flags.open("which of the shuffled rows a filter keeps"), rows="kept")
        told(b.apply("take", moved, kept, table=0).sum())

    with pytest.raises(ConsentError, match="a filter leaves less than that out"):
        await attacked.run(asked(make))


async def test_rows_of_two_tables_are_not_side_by_side_unless_they_are_joined(attacked):
    """Ann's own table has a mark in the row that lies where the hospital's row 7 lies."""
    victim = await attacked.victim(min_count=20)
    marks = {"id": np.arange(ROWS), "mark": (np.arange(ROWS) == 7).astype(int)}
    await attacked.ann.upload(marks, name="marks", key="id", owner="ann", allow=Allow(plans="any"))
    own = await attacked.ann.table("marks")
    b = attacked.builder()
    told((values_of(b, victim) * values_of(b, own, "mark")).bounded(2.0**30, "x").sum())
    assert SINGLE in await attacked.why_not(b.plan())
    b = attacked.builder()
    key = b.random_words(2)
    # Keys of her own, shuffled along with the hospital's rows, would say which of these to keep.
    words = b.apply("prf", key, b.input(own.keys.handle, own.keys.type))
    names, moved = b.apply_all("shuffle", words, values_of(b, victim))
    handle = "one key"
    kind = Type(Form.WORDS, (2, 1))
    await attacked.ann.cluster.client.put(handle, kind, np.array([[1], [2]], dtype=np.uint64))
    (wanted,) = b.apply_all("shuffle", b.apply("prf", key, b.input(handle, kind)))
    lists = [wanted.open("pseudonyms"), names.open("pseudonyms")]
    told(moved.take(b.apply("match", *lists, rows="join.rows"), table=1).sum())
    assert SINGLE in await attacked.why_not(b.plan())


# -- what is allowed ---------------------------------------------------------------------------------------


async def test_figures_over_all_rows_are_told(attacked, asked):
    def make(b, x, own):
        told(x.sum(), "sum")
        told((x - 50).bounded(2.0**30, "x").is_negative().to_ring().sum(), "count")
        wide = concatenate([x.reshape(1, ROWS), (x * x).bounded(2.0**40, "x").reshape(1, ROWS)])
        told(wide.dot(x.reshape(1, ROWS), magnitude=2.0**50).transpose().squeeze(), "products")
        told(b.apply_all("shuffle", x)[0].slice(0, 50).sum(), "a sample")

    ages = np.round(np.linspace(20, 80, ROWS), 2)
    found = (await attacked.run(asked(make))).revealed
    scale = column(await attacked.ann.table("ages")).schema.scale
    np.testing.assert_allclose(np.ldexp(found["sum"], -scale), ages.sum(), atol=1)
    assert found["products"].shape == (2,)


def test_every_kind_says_what_it_does_along_the_rows():
    """What does not say so keeps rows apart; nothing that is built in leaves it at that."""
    assert [name for name, kind in KINDS.items() if kind.along is Along.UNKNOWN] == []


async def test_a_kind_that_does_not_say_keeps_rows_apart(attacked, asked, monkeypatch):
    monkeypatch.setattr(type(KINDS["truncate"]), "along", Along.UNKNOWN)

    def make(b, x, own):
        told((x * x).bounded(2.0**40, "x").at_scale(4).rescale(0).sum())

    assert SINGLE in await attacked.why_not(asked(make))


async def test_rows_that_are_stacked_count_for_their_own_tables(attacked):
    """Few rows of the hospital between many of ann; the same rows twice; marks of which rows are whose."""
    victim = await attacked.victim(min_count=20)
    await attacked.ann.upload(AGES, name="own", key="id", owner="ann", allow=Allow(plans="any"))
    own = await attacked.ann.table("own")

    def why_not(make):
        b = attacked.builder()
        told(make(values_of(b, victim).bounded(2.0**20, "x"), values_of(b, own).bounded(2.0**20, "x")).sum())
        return attacked.why_not(b.plan())

    few = await why_not(lambda x, mine: stack([x.slice(0, 4), mine]))
    assert "no fewer than 20 rows" in few
    assert "no fewer than 20 rows" in await why_not(lambda x, mine: stack([x, mine]).slice(0, 4))
    assert SINGLE in await why_not(lambda x, mine: stack([x, x]))
    marks = np.arange(2 * ROWS) == 3
    assert SINGLE in await why_not(lambda x, mine: stack([x, mine]) * x.builder.constant(marks))
    assert SINGLE in await why_not(lambda x, mine: stack([x, mine]) * stack([mine, x]))
    b = attacked.builder()
    told(stack([values_of(b, one).bounded(2.0**30, "x") for one in (victim, own)]).sum())
    assert len((await attacked.run(b.plan())).revealed) == 1
