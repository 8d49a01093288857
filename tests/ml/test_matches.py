"""Joins that match hardly any rows say what public facts suggest, just where the number is told."""

import itertools
import warnings

import numpy as np
import pytest

from tercet.errors import FewMatchesWarning, SchemaError

numbers = itertools.count()


def put(lake, keys, owner="o", **options):
    """A table of some keys, a list by name; named by its number."""
    columns = {**keys, f"x{next(numbers)}": np.arange(len(next(iter(keys.values())))) + 0.5}
    name = f"table {next(numbers)}"
    return lake.upload(columns, name=name, key=list(keys), owner=owner, **options)


def said(first, *others, **options):
    """What a join warns of, none or one sentence."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first.join(*others, on=first.key_names, **options)
    assert all(one.category is FewMatchesWarning for one in caught)
    assert len(caught) <= 1
    return str(caught[0].message) if caught else ""


@pytest.mark.parametrize("how", ["inner", "semi", "anti", "outer", "left", "right"])
@pytest.mark.parametrize("sizes", ["exact", "noisy", "hidden"])
def test_only_what_is_told_is_looked_at(plain, how, sizes):
    """A left join has as many rows whatever matches, and noise and hiding leave nothing to go by."""
    left, right = put(plain, {"id": [1, 2, 3, 4]}), put(plain, {"id": [11, 12, 13]})
    sentence = said(left, right, how=how, sizes=sizes)
    told = sizes == "exact" and how in ("inner", "semi", "anti", "outer")
    assert bool(sentence) is told
    if told:
        assert sentence.startswith(
            f"the join of {left.name!r} (4 rows) and {right.name!r} (3 rows) matches no rows"
        )


def test_rows_that_a_filter_dropped_match_too(plain):
    """So nothing is said of those that count; who is left after an anti join is not told then."""
    left, right = put(plain, {"id": [1, 2, 3]}), put(plain, {"id": [2, 3, 4]})
    none = right.filter(right[right.column_names[0]] > 100)
    for how in ("inner", "semi", "outer", "anti"):
        assert not said(left, none, how=how)


def test_a_share_may_be_said(plain):
    left, right = put(plain, {"id": np.arange(200)}), put(plain, {"id": np.arange(199, 300)})
    assert "matches 1 row, less than a share of 0.01 of the smallest" in said(left, right)
    assert not said(left, right, min_share=0)
    more = put(plain, {"id": np.arange(150, 350)})
    assert not said(left, more)
    assert "matches 50 rows, less than a share of 0.5 of" in said(left, more, min_share=0.5)
    assert "a share of 0.5 of" in said(left, more, min_share=0.5, how="outer")
    assert "a share of 0.5 of" in said(left, more, min_share=0.5, how="anti")
    assert not said(left, more, min_share=0.25)
    with pytest.raises(SchemaError, match="min_share"):
        left.join(more, on="id", min_share=2)


def test_types_of_keys_suggest_where_to_look(plain):
    words, others = {"id": ["a", "b"]}, {"id": ["A", "B"]}
    assert (
        "id is text, which differs by the Unicode form of accents, blanks at either end, case, leading zeros"
        in said(put(plain, words), put(plain, others))
    )
    some = {"normalise": ["strip", "zeros"]}
    sentence = said(put(plain, words, **some), put(plain, others, **some))
    assert "differs by the Unicode form of accents, case; " in sentence
    assert "normalise=['strip', 'zeros', 'nfc', 'case']" in sentence
    every = {"normalise": ["strip", "zeros", "nfc", "case"]}
    sentence = said(put(plain, words, **every), put(plain, {"id": ["c"]}, **every))
    assert sentence.endswith("id is text, normalised in all ways, so look whether all owners mean the same")
    sentence = said(
        put(plain, {"site": ["n", "n"], "number": [1, 2]}), put(plain, {"site": ["s", "s"], "number": [1, 2]})
    )
    assert "all of site, number have to agree in a row; site is text" in sentence
    assert "number is whole numbers, which match by value" in sentence
    for empty in ({"id": np.array([], int)},):
        assert not said(put(plain, empty), put(plain, {"id": [1]}))
