"""What nodes learn: openings that are harmless one by one, and tell rows together.

The hospital lets any plan run. Ann works with the operator of one node, who writes down what is opened. Plans
that open more than one output of a shuffle, or that use pseudonyms for more than one match, ask the hospital.
"""

from __future__ import annotations

import numpy as np
import pytest

from tercet import Allow
from tercet.plans import Form, Type
from tests.attacks.lake import ROWS, values_of

ASKED = "the owner was asked"
WHY = "pseudonyms of shuffled keys, random words"


def pseudonyms(b, key, table):
    return b.apply("prf", key, b.input(table.keys.handle, table.keys.type))


def bits(x):
    return (x - 50).bounded(2.0**40, "x").is_negative().to_ring()


def two_outputs_of_one_shuffle(b, table, x, own):
    for one in b.apply_all("shuffle", pseudonyms(b, b.random_words(2), table), bits(x)):
        one.open(WHY)


def the_key_as_well(b, table, x, own):
    key = b.random_words(2)
    b.apply_all("shuffle", pseudonyms(b, key, table))[0].open(WHY)
    key.open("random words")


def the_key_hidden_in_another(b, table, x, own):
    key, other = b.random_words(2), b.random_words(2)
    b.apply_all("shuffle", pseudonyms(b, key, table))[0].open(WHY)
    (key ^ other).open("random words")
    other.open("more random words")


def the_key_to_take_home(b, table, x, own):
    key = b.random_words(2)
    b.apply_all("shuffle", pseudonyms(b, key, table))[0].open(WHY)
    key.store("a key")


def pseudonyms_in_order(b, table, x, own):
    pseudonyms(b, b.random_words(2), table).open(WHY)


def a_dictionary(b, table, x, own):
    """Pseudonyms of ids that ann knows, in her order, under the key of the table's."""
    key = b.random_words(2)
    b.apply_all("shuffle", pseudonyms(b, key, table))[0].open(WHY)
    b.apply("prf", key, own).open("pseudonyms of my own keys")


def a_dictionary_in_pieces(b, table, x, own):
    """Shuffled, but in lists that say by who is in which whose pseudonym each is."""
    key = b.random_words(2)
    b.apply_all("shuffle", pseudonyms(b, key, table))[0].open(WHY)
    for half in (own.slice(0, 50), own.slice(25, 75)):
        b.apply_all("shuffle", b.apply("prf", key, half))[0].open(WHY)


def the_same_table_twice(b, table, x, own):
    """Under one key, so that the orders of two shuffles are known from each other."""
    key = b.random_words(2)
    for _ in range(2):
        b.apply_all("shuffle", pseudonyms(b, key, table), bits(x) * (1 + _))[0].open(WHY)


def the_order_of_a_shuffle(b, table, x, own):
    """Numbers of ann's own that were shuffled along tell which row went where."""
    flags, moved = b.apply_all("shuffle", bits(x), own.builder.input(*NUMBERS))
    flags.open("how many there are")
    moved.open("numbers of my own")


def a_bit_in_order(b, table, x, own):
    bits(x).open("how many there are")


def numbers_that_are_promised_to_be_bits(b, table, x, own):
    b.apply_all("shuffle", x.bounded(1.0, "a bit"))[0].open("how many there are")


def a_bit_by_place(b, table, x, own):
    """A bit that is hers to choose in every row but one."""
    chosen = (bits(x) * own.builder.input(*NUMBERS)).bounded(1.0, "x")
    b.apply_all("shuffle", bits(chosen))[0].open("how many there are")


def a_shuffled_shuffle(b, table, x, own):
    once = b.apply_all("shuffle", pseudonyms(b, b.random_words(2), table), bits(x))
    b.apply_all("shuffle", *once)[0].open(WHY)


ASKING = [
    two_outputs_of_one_shuffle,
    the_key_as_well,
    the_key_hidden_in_another,
    the_key_to_take_home,
    pseudonyms_in_order,
    a_dictionary,
    a_dictionary_in_pieces,
    the_same_table_twice,
    the_order_of_a_shuffle,
    a_bit_in_order,
    numbers_that_are_promised_to_be_bits,
    a_bit_by_place,
    a_shuffled_shuffle,
]
NUMBERS = ("numbers", Type(Form.RING, (ROWS,), 0, 2.0**20))


@pytest.fixture
async def asked(attacked):
    """Make a plan of ann's that opens something, and reveals a figure that she may have."""
    table = await attacked.victim(min_count=10)
    handle, kind = "own keys", Type(Form.WORDS, (2, ROWS))
    words = np.arange(2 * ROWS, dtype=np.uint64).reshape(2, ROWS)
    await attacked.ann.cluster.client.put(handle, kind, words)
    await attacked.deal(np.arange(ROWS) == 7, NUMBERS[0])

    def make(attack):
        b = attacked.builder("figures")
        x = values_of(b, table)
        attack(b, table, x.shifted(-x.scale).bounded(2.0**30, "x"), b.input(handle, kind))
        x.sum().reveal("total", to="analyst")
        return b.plan()

    return make


async def test_openings_that_tell_more_together_are_for_the_owner_to_see(attacked, asked):
    for attack in ASKING:
        assert ASKED in await attacked.why_not(asked(attack)), attack.__name__


async def test_lists_of_a_members_own_spell_out_nobodys_name(attacked):
    """Seven tables of half the ids each: who is in which of them says whose each pseudonym is."""
    table = await attacked.victim(min_count=10)
    own = []
    for place in range(2):
        ids = [number for number in range(ROWS) if number >> place & 1]
        columns = {"id": ids, "x": np.linspace(0, 1, len(ids))}
        await attacked.ann.upload(
            columns, name=f"mine{place}", key="id", owner="ann", allow=Allow(plans="any")
        )
        own.append(await attacked.ann.table(f"mine{place}"))
    b = attacked.builder()
    key = b.random_words(2)
    for one in (table, *own):
        b.apply_all("shuffle", pseudonyms(b, key, one))[0].open(WHY)
    values_of(b, table).sum().reveal("total", to="analyst")
    assert ASKED in await attacked.why_not(b.plan())


async def test_a_list_of_few_names_nobody(attacked):
    """A list of one key says by what it matches whether that key is there."""
    table = await attacked.victim(min_count=10)
    await attacked.ann.upload(
        {"id": [7], "x": [0.0]}, name="one", key="id", owner="ann", allow=Allow(plans="any")
    )
    b = attacked.builder()
    key = b.random_words(2)
    for one in (table, await attacked.ann.table("one")):
        b.apply_all("shuffle", pseudonyms(b, key, one))[0].open(WHY)
    assert "no fewer than 10 rows" in await attacked.why_not(b.plan())


async def test_what_joins_and_filters_open_is_harmless_still(attacked):
    await attacked.victim(min_count=10)
    joined = await attacked.joined()
    assert joined.rows == ROWS
    kept = await joined.filter(joined["age"] > 40, compact=True)
    assert 0 < kept.rows < ROWS
    train, test = await kept.split(test_size=0.5)
    assert train.rows + test.rows == kept.rows
