"""Every disclosure of `tercet.ml` says its class: found in the syntax trees, so that none is forgotten."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tercet.ml
from tercet.plans import CLASSES

SOURCES = sorted(Path(tercet.ml.__file__).parent.rglob("*.py"))


def unclassed(tree):
    """Lines of reveals of a plan's values (which name what they reveal) that do not say a class."""
    for call in ast.walk(tree):
        match call:
            case ast.Call(func=ast.Attribute(attr="apply"), args=[ast.Constant(value="reveal"), *_]):
                yield call.lineno
            case ast.Call(func=ast.Attribute(attr="reveal"), args=[_, *_], keywords=given):
                said = [one.value for one in given if one.arg == "kind"]
                texts = [one.value for each in said for one in ast.walk(each) if _is_result(one, each)]
                if not said or not set(texts) <= set(CLASSES):
                    yield call.lineno


def _is_result(node, expression):
    """Whether a constant can be the value of an expression, and is not just compared with."""
    compared = {
        id(one) for test in ast.walk(expression) if isinstance(test, ast.Compare) for one in ast.walk(test)
    }
    return isinstance(node, ast.Constant) and id(node) not in compared


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_reveals_say_their_class(source):
    assert list(unclassed(ast.parse(source.read_text()))) == []


def test_there_are_reveals_to_look_at():
    calls = [
        call
        for source in SOURCES
        for call in ast.walk(ast.parse(source.read_text()))
        if isinstance(call, ast.keyword) and call.arg == "kind"
    ]
    assert len(calls) > 20


@pytest.mark.parametrize(
    "code",
    [
        "value.reveal('x', to=to)",
        "value.reveal('x', to=to, kind='')",
        "value.reveal('x', to=to, kind='figures')",
        "(a if b else c).sum().reveal(name, to=to)",
        "value.reveal('x', to=to, kind='rows' if many == 'count' else '')",
        "builder.apply('reveal', value, name='x', to='ann')",
    ],
)
def test_reveals_without_a_class_are_found(code):
    assert list(unclassed(ast.parse(code))) == [1]


def test_models_and_tables_have_reveals_of_their_own():
    assert list(unclassed(ast.parse("model.reveal(to=to)"))) == []
    assert list(unclassed(ast.parse("value.reveal('x', to=to, kind=kind)"))) == []
    assert list(unclassed(ast.parse("v.reveal(n, to=to, kind='rows' if n == 'x' else 'count')"))) == []
