"""Formulas are read in a short time or refused in a sentence, whatever they say, and run nothing."""

import builtins
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tercet.errors import SchemaError
from tercet.ml.formula_terms import MOST_CHARACTERS, terms_of

TOO_MANY = "means far too many terms"


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ("(a + b) ** 500", TOO_MANY),
        ("(a + b) ^ 40", TOO_MANY),
        ("(a + b + c) ** 12", TOO_MANY),
        ("a ** 999999999", TOO_MANY),
        ("((((a + b) ** 9) ** 9) ** 9) ** 9", TOO_MANY),
        ("*".join(f"x{place}" for place in range(22)), TOO_MANY),
        (" + ".join(["(a + b + c) ** 6"] * 60), TOO_MANY),
        ("+".join(f"x{place}" for place in range(3000)), TOO_MANY),
        ("a ** (-1)", "a whole number after"),
        ("a ** (2 + 3)", "a whole number after"),
        ("(a + b) ** 0", "cannot be read"),
        ("(a + b) ** b", "cannot be read"),
        (f"a ** {'9' * 5000}", "cannot be read"),
        ("a" * MOST_CHARACTERS, "32,768 will do"),
    ],
)
def test_formulas_that_mean_too_much(terms, message):
    """As they are written out, they take hours, or all memory."""
    with pytest.raises(SchemaError, match=message):
        terms_of(f"y ~ {terms}")


@pytest.mark.parametrize(
    ("terms", "count"),
    [
        ("(a + b + c + d) ** 3", 1 + 4 + 6 + 4),
        ("a * b * c * d * e * f * g * h * i", 2**9),
        ("+".join(f"x{place}" for place in range(1000)), 1001),
        ("a - b", 2),
        ("a / b", 3),
    ],
)
def test_formulas_of_many_terms(terms, count):
    left, right = terms_of(f"y ~ {terms}")
    assert left == [["y"]]
    assert len(right) == count


@pytest.mark.parametrize(
    "code",
    [
        "I(__import__('os').system('x'))",
        "{__import__('os').system('x')}",
        "os.system('x')",
        "`os`",
        "eval('x')",
    ],
)
def test_reading_runs_nothing(monkeypatch, code):
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    monkeypatch.setattr(builtins, "eval", ran.append)
    for formula in (f"y ~ {code}", f"{code} ~ y", f"y ~ (a + b) ** {code}"):
        try:
            terms_of(formula)
        except SchemaError:
            continue
    assert not ran


@given(
    st.lists(
        st.sampled_from([*"ab1029()[]{}~+-*/:^|.,'`#\\", "**", " in ", "%in%", "C(", "é", "\0"]), max_size=24
    )
)
def test_any_text_is_read_or_refused(pieces):
    try:
        terms_of("".join(pieces))
    except SchemaError as error:
        assert str(error)  # noqa: PT017 - nothing else is raised
