"""Whatever is given for an option: it does, or one sentence names the option. Never an error from within."""

import inspect
import warnings

import attrs
import numpy as np
import pandas as pd
import polars as pl
import pytest

import tercet
from tercet.client.allow import Allow
from tercet.errors import PlanError, SchemaError, TercetError
from tercet.ml import (
    GridSearch,
    LogisticRegression,
    MeanImputer,
    MinMaxScaler,
    StandardScaler,
    cross_validate,
)
from tercet.options import COLUMN, COLUMNS, COUNT, FLAG, LEVEL, NAMES, Either, Number, Several, takes

ROWS = 60
RNG = np.random.default_rng(5)
DATA = {
    "k": np.arange(ROWS),
    "x": RNG.normal(size=ROWS),
    "z": RNG.normal(size=ROWS),
    "w": RNG.random(ROWS) + 0.5,
    "b": np.arange(ROWS) % 2 == 0,
    "y": np.arange(ROWS) % 3 == 0,
}
ABSURD = {
    "object": object(),
    "[]": [],
    "{}": {},
    "''": "",
    "text": "x y",
    "bytes": b"x",
    "-1": -1,
    "0": 0,
    "1.5": 1.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "None": None,
    "True": True,
    "array": np.array([0.5]),
    "matrix": np.eye(2),
    "Series": pd.Series([0.5, 1.0]),
    "polars": pl.Series([1, 2]),
    "frame": pd.DataFrame({"x": [1]}),
    "list": [1, None],
    "nested": [["x"]],
    "set": {"x"},
    "dict": {"x": object()},
    "class": int,
    "huge": 10**30,
    "complex": 1j,
    "generator": (one for one in "ab"),
}


@pytest.fixture(scope="module")
def lake():
    with tercet.local(protocol="plain") as opened:
        yield opened


def a_plan(lake):
    builder = lake.builder("nothing much")
    builder.random_words(2).reveal("words", to="analyst")
    return builder.plan()


@pytest.fixture(scope="module")
def made(lake):
    """What there is to call, by name."""
    table = lake.upload(DATA, name="t", key="k", owner="o")
    other = lake.upload({"k": DATA["k"], "v": DATA["x"]}, name="u", key="k", owner="o")
    model = LogisticRegression(max_iter=2, check=False).fit(table, target="y")
    model.save("kept")
    evaluation = model.evaluate(table)
    return {
        "lake": lake,
        "table": table,
        "other": other,
        "model": model,
        "secret": lake.model("kept"),
        "evaluation": evaluation,
        "metrics": evaluation.reveal(["roc_auc", "roc_auc_se"]),
        "scaler": StandardScaler().fit(table),
        "plan": a_plan(lake),
    }


def few(**options):
    return LogisticRegression(max_iter=1, check=False, **options)


FIT = {"target": "y"}
CALLS = {
    "LogisticRegression": (lambda made: LogisticRegression, {}),
    "StandardScaler": (lambda made: StandardScaler, {}),
    "MinMaxScaler": (lambda made: MinMaxScaler, {}),
    "MeanImputer": (lambda made: MeanImputer, {}),
    "GridSearch": (lambda made: GridSearch, {"model": LogisticRegression(), "C": [1.0]}),
    "Allow": (lambda made: Allow, {}),
    "fit": (lambda made: few().fit, {"table": "table", **FIT}),
    "submit": (lambda made: few().submit, {"table": "table", **FIT}),
    "search": (lambda made: GridSearch(few(), C=[1.0], cv=2).fit, {"table": "table", **FIT}),
    "cross_validate": (lambda made: cross_validate, {"model": few(), "table": "table", "cv": 2, **FIT}),
    "scaler.fit": (lambda made: StandardScaler().fit, {"table": "table"}),
    "scaler.transform": (lambda made: made["scaler"].transform, {"table": "table"}),
    "scaler.fit_transform": (lambda made: MinMaxScaler().fit_transform, {"table": "table"}),
    "scaler.reveal": (lambda made: made["scaler"].reveal, {}),
    "predict": (lambda made: made["model"].predict, {"table": "table"}),
    "predict_proba": (lambda made: made["model"].predict_proba, {"table": "table"}),
    "decision_function": (lambda made: made["model"].decision_function, {"table": "table"}),
    "evaluate": (lambda made: made["model"].evaluate, {"table": "table", "metrics": "accuracy"}),
    "score": (lambda made: made["model"].score, {"table": "table"}),
    "reveal": (lambda made: made["model"].reveal, {}),
    "save": (lambda made: made["model"].save, {"name": "again"}),
    "secret.predict": (lambda made: made["secret"].predict, {"table": "table"}),
    "secret.reveal": (lambda made: made["secret"].reveal, {}),
    "secret.save": (lambda made: made["secret"].save, {"name": "again"}),
    "evaluation.reveal": (lambda made: made["evaluation"].reveal, {"metrics": "accuracy"}),
    "roc_curve": (lambda made: made["evaluation"].roc_curve, {"points": 4}),
    "calibration": (lambda made: made["evaluation"].calibration, {"bins": 2}),
    "roc_auc_interval": (lambda made: made["metrics"].roc_auc_interval, {}),
    "join": (lambda made: lambda on: made["table"].join(made["other"], on=on), {"on": "k"}),
    "concat": (lambda made: tercet.concat, {"tables": "tables", "duplicates": "keep"}),
    "split": (lambda made: made["table"].split, {}),
    "filter": (lambda made: made["table"].filter, {"condition": "condition"}),
    "dropna": (lambda made: made["table"].dropna, {}),
    "describe": (lambda made: made["table"].describe, {"statistics": ["mean"]}),
    "crosstab": (
        lambda made: made["table"].crosstab,
        {"rows": "b", "columns": "y", "statistics": ["counts"]},
    ),
    "agg": (lambda made: made["table"].groupby("b").agg, {"aggregates": {"x": "sum"}}),
    "to_table": (lambda made: made["table"].groupby("k").to_table, {"aggregates": {"x": "sum"}}),
    "value_counts": (lambda made: made["table"].value_counts, {"column": "b"}),
    "corr": (lambda made: made["table"].corr, {}),
    "table.reveal": (lambda made: made["table"].reveal, {"columns": ["x"]}),
    "upload": (lambda made: made["lake"].upload, {"source": "DATA", "name": "n", "key": "k", "owner": "o"}),
    "model": (lambda made: made["lake"].model, {"name": "kept"}),
    "run": (lambda made: made["lake"].run, {"plan": None}),
    "lake.submit": (lambda made: made["lake"].submit, {"plan": None}),
    "collect": (lambda made: few().collect, {"job": None, "table": "table", **FIT}),
    "trace": (lambda made: lambda path: made["lake"].trace(path), {"path": "trace.json"}),
    "isin": (lambda made: made["table"]["x"].isin, {"numbers": [1]}),
    "one_hot": (lambda made: made["table"]["x"].one_hot, {"categories": [1]}),
    "clip": (lambda made: made["table"]["x"].clip, {"lower": None, "upper": 2.0}),
    "fillna": (lambda made: made["table"]["x"].fillna, {"number": 1}),
    "where": (lambda made: made["table"]["x"].where, {"condition": "condition", "other": 0}),
    "compare": (lambda made: tercet.compare, {"plan": "nothing"}),
    "set_params": (lambda made: lambda C: LogisticRegression().set_params(C=C), {"C": 1.0}),
    "local": (lambda made: closed(tercet.local), {"protocol": "plain"}),
    "open_local": (lambda made: tercet.open_local, {}),
    "explain": (lambda made: tercet.explain, {"plan": "plan"}),
    "draw": (lambda made: tercet.draw, {"plan": "plan"}),
    "connect": (lambda made: tercet.connect, {"cluster": "nowhere.toml", "identity": "no.key"}),
}
NOT_ASKED = {"self", "source", "deep", "params"}
"""What is no option, or is tested where files are."""


def closed(function):
    """A lake that is closed at once."""

    def called(**options):
        with function(**options):
            return

    called.__signature__ = inspect.signature(function)
    return called


def _refusal(function, options):
    """What Tercet says to a call, nothing if it works."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(**options)
        except TercetError as error:
            return str(error)
    return ""


@pytest.mark.parametrize("call", CALLS)
def test_whatever_is_given_for_an_option(made, call, recwarn):
    """Each option of each call: it works, or a sentence of Tercet's names the option or shows the value."""
    found, base = CALLS[call]
    function = found(made)
    known = {**made, "tables": [made["table"]] * 2, "condition": made["table"]["x"] > 0, "DATA": DATA}
    base = {name: known.get(one, one) if isinstance(one, str) else one for name, one in base.items()}
    usual = _refusal(function, base)
    wrong = []
    for option in inspect.signature(function).parameters:
        if option in NOT_ASKED:
            continue
        for what, value in ABSURD.items():
            try:
                told = _refusal(function, {**base, option: value})
            except Exception as error:  # noqa: BLE001 - that is what is asked
                wrong.append(f"{option}={what}: {type(error).__name__}: {error}")
                continue
            shown = isinstance(value, str) and value and value in told
            shown = shown or f"x.{call}(" in told  # expressions show all that was written
            if told not in ("", usual) and option not in told and not shown:
                wrong.append(f"{option}={what}: does not name it: {told}")
    assert not wrong, "\n".join(wrong)


def test_every_option_of_the_packages_is_tried(made):
    """No public callable with options is left out above."""
    left_out = {"computation", "open_lake", "Allow", "AsyncLake", "Lake", "Table"}
    public = {name: getattr(module, name) for module in (tercet, tercet.ml) for name in module.__all__}
    results = {name for name, one in public.items() if inspect.isclass(one) and not _constructed(one)}
    errors = {name for name in results if issubclass(public[name], Exception)}
    assert set(public) - results - errors <= set(CALLS) | left_out


def _constructed(cls):
    return attrs.has(cls) and cls in (
        LogisticRegression,
        GridSearch,
        StandardScaler,
        MinMaxScaler,
        MeanImputer,
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (DATA["w"], r"sample_weight is an array \(ndarray\) of 60 values, not the name of a column"),
        (pd.Series(DATA["w"]), r"sample_weight is an array \(Series\) of 60 values"),
        (pl.Series(DATA["w"]), r"sample_weight is an array \(Series\) of 60 values"),
        ([1.0] * ROWS, "sample_weight is a list of 60 items"),
        (1.0, "sample_weight=1.0 is a number, not the name of a column"),
        ({0: 1, 1: 2}, "sample_weight is a dict of 2 items"),
        (None, None),
    ],
)
def test_columns_are_named(made, given, told):
    if told is None:
        few().fit(made["table"], target="y", sample_weight=given)
        return
    with pytest.raises(SchemaError, match=f"LogisticRegression.fit: {told}.*upload the values as a column"):
        few().fit(made["table"], target="y", sample_weight=given)


@pytest.mark.parametrize("option", ["target", "sample_weight", "offset", "features"])
def test_an_expression_is_not_a_name(made, option):
    with pytest.raises(SchemaError, match=f"{option} is the expression w, not .*: write {option}='w'"):
        few().fit(made["table"], **{**FIT, option: made["table"]["w"]})
    with pytest.raises(SchemaError, match=f"{option} is the expression .*assign"):
        few().fit(made["table"], **{**FIT, option: made["table"]["w"] + 1})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"features": "[x]"}, r"features\[0\] is the expression x, not a name: write features\[0\]='x'; "),
        ({"features": "[z, x + 1]"}, r"features\[1\] is the expression x \+ 1, .*assign\(new=x \+ 1\)"),
        ({"features": ["x", 3]}, r"features\[1\]=3 is a number, not a name"),
        ({"features": [["x"]]}, r"features\[0\]=\['x'\] is a list of 1 item, not a name"),
        ({"features": ["x", ""]}, r"features\[1\]='' is not a name"),
    ],
)
def test_the_item_of_a_list_that_is_wrong(made, options, told):
    table = made["table"]
    lists = {"[x]": [table["x"]], "[z, x + 1]": ("z", table["x"] + 1)}
    given = options["features"]
    with pytest.raises(SchemaError, match=f"LogisticRegression.fit: {told}.*features has to be a name or a"):
        few().fit(table, target="y", features=lists[given] if isinstance(given, str) else given)
    with pytest.raises(SchemaError, match=told.replace("features", "columns")):
        table.reveal(columns=lists[given] if isinstance(given, str) else given)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ranges": {"x": 5}}, r"ranges\['x'\]=5 is a number, not two numbers; ranges has to be a dict"),
        ({"ranges": {"z": (0, 1), "x": "ab"}}, r"ranges\['x'\]='ab' is text, not two numbers"),
        ({"ranges": {3: (0, 1)}}, "a key of ranges=3 is a number, not the name of a column"),
        ({"ranges": [1]}, r"ranges=\[1\] is a list of 1 item, not a dict"),
        ({"scales": {"x": 1.5}}, r"scales\['x'\]=1.5 is not a whole number"),
        ({"types": {"x": float}}, r"types\['x'\] is the class float, not the name of a kind"),
    ],
)
def test_the_item_of_a_dict_that_is_wrong(lake, options, told):
    with pytest.raises(SchemaError, match=told):
        lake.upload(DATA, name="v", key="k", owner="o", **options)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("123", r"categories\['b'\]='123' is text, not a list of at most 256 numbers"),
        ([0, [1]], r"categories\['b'\]\[1\]=\[1\] is a list of 1 item, not a finite number"),
        ([], r"categories\['b'\]=\[\] is not a list of at most 256 numbers"),
    ],
)
def test_categories_that_are_wrong(made, given, told):
    with pytest.raises(PlanError, match=f"{told}.*categories has to be a dict"):
        made["table"].crosstab("b", "y", categories={"b": given})


def test_a_grid_of_penalties_is_a_list():
    with pytest.raises(PlanError, match=r"C is a dict of 1 item, .* what it has under 'C', without the dict"):
        GridSearch(LogisticRegression(), {"C": [0.1, 1]})
    with pytest.raises(PlanError, match=r"GridSearch: C\[1\]=-1 is not a positive"):
        GridSearch(LogisticRegression(), [0.1, -1])
    for other in ({"C": 5}, {"C": [1.0], "tol": [0.1]}):
        with pytest.raises(PlanError, match=r"C is a dict .*not a list.*as in C="):
            GridSearch(LogisticRegression(), other)


def test_names_in_an_index_will_do(made):
    for names in (pd.Index(["x", "z"]), np.array(["x", "z"]), ("x", "z"), pl.Series(["x", "z"])):
        model = few().fit(made["table"], target="y", features=names)
        assert model.feature_names_in_.tolist() == ["x", "z"]


def test_numbers_of_numpy_will_do(made):
    options = {"C": np.float32(0.5), "max_iter": np.int64(2), "check": np.bool_(False)}
    model = LogisticRegression(**options).fit(made["table"], target="y", features=["x"])
    model.predict(made["table"], threshold=np.float64(0.3))
    made["table"].split(test_size=np.float64(0.5))


@pytest.mark.parametrize(
    ("rule", "good", "bad", "says"),
    [
        (
            Number(above=0),
            (1, 0.5, np.float32(2)),
            (0, "1", True, float("nan"), None),
            "positive, finite number",
        ),
        (Number(least=0, below=1), (0, 0.5), (1, -0.1), "between 0 and 1, and below 1"),
        (Number(least=2), (2,), (1,), "of at least 2"),
        (Number(below=2), (1,), (2,), "below 2"),
        (COUNT, (1, np.int8(3)), (0, 1.0, True), "a whole number of at least 1"),
        (LEVEL, (0.5,), (0, 1, np.array([0.5])), "between 0 and 1"),
        (FLAG, (True, np.bool_(False)), (0, "yes", None), "True or False"),
        (COLUMN, ("a",), ("", 1, ["a"], None), "the name of a column"),
        (COLUMNS, ("a", ["a"], ("a", "b")), ([], [1], {"a"}, None, {"a": 1}), "a name or a list"),
        (NAMES, (None, "a"), (1, b"a"), "or None"),
        (Several(each=Number(above=0)), ([1, 2], np.array([1.0])), ([], [0], 1, "ab"), "a list, each of it"),
        (Either(rules=(COUNT, FLAG)), (1, True), ("a", 0.5), "or True or False"),
    ],
)
def test_rules(rule, good, bad, says):
    for value in good:
        rule.require("here", "option", value)
    for value in bad:
        with pytest.raises((PlanError, SchemaError), match="here: option.*" + says):
            rule.require("here", "option", value)


def test_calls_that_python_refuses_stay_so():
    @takes(size=COUNT)
    def function(size, *, more=1):
        return size + more

    assert function(2) == 3
    assert function.__name__ == "function"
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        function()
    with pytest.raises(TypeError, match="unexpected keyword"):
        function(1, wrong=2)
    with pytest.raises(TypeError, match="has no option sise"):
        takes(sise=COUNT)(lambda size: size)


async def test_lakes_in_trio_refuse_at_once():
    with pytest.raises(PlanError, match="open_local: latency_ms='3' is text"):
        tercet.open_local(latency_ms="3")
    async with tercet.open_local(protocol="plain") as lake:
        with pytest.raises(SchemaError, match="upload: key=None is not"):
            lake.upload(DATA, name="t", key=None, owner="o")
