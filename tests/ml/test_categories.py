"""Categories: public labels over secret codes, aligned by label whoever uploaded them."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tercet.errors import PlanError, SchemaError
from tercet.ml import LogisticRegression, StandardScaler
from tercet.ml.ingest import encode
from tercet.ml.made_up import made_up_rows, upload_options
from tercet.ml.schema import ColumnSchema, TableSchema
from tercet.ml.upload import encode_for_upload

ROWS = 60
RNG = np.random.default_rng(11)
FRAME = pd.DataFrame(
    {
        "id": np.arange(ROWS),
        "stage": RNG.choice(["II", "I", "III"], ROWS),
        "sick": RNG.random(ROWS) < 0.4,
        "x": RNG.normal(size=ROWS),
    }
).assign(n=np.arange(ROWS) % 7)
HOLES = FRAME.assign(stage=FRAME["stage"].where(FRAME.index % 5 != 0, None))
TYPES = {"stage": "category"}


def put(lake, frame=FRAME, name="t", **options):
    return lake.upload(frame, name=name, key="id", owner="owner", **{"types": TYPES, **options})


def labels_of(column, **options):
    table = encode({"id": np.arange(len(column)), "c": column}, name="t", key="id", owner="o", **options)
    schema = table.schema.column("c")
    codes = table.values[0]
    return schema.labels, [schema.labels[code] for code in codes]


CATEGORY = {"types": {"c": "category"}}

# -- at upload -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (["b", "a", "b"], ("a", "b")),
        (["10", "9", "-1"], ("-1", "9", "10")),
        ([10, 9, 9], ("9", "10")),
        (np.array(["ä", "z", "a"]), ("a", "z", "ä")),
        (pd.Series(["b", "a", "b"], dtype="string"), ("a", "b")),
        (pd.Series(pd.Categorical(["b", "a"], categories=["c", "b", "a"])), ("c", "b", "a")),
        (pd.Series(pd.Categorical(["b", "a"], categories=["b", "a"], ordered=True)), ("b", "a")),
        (pl.Series(["b", "a"], dtype=pl.Categorical), ("a", "b")),
        (pl.Series(["b", "a"], dtype=pl.Enum(["b", "c", "a"])), ("b", "c", "a")),
        (pd.Series([True, False]), ("False", "True")),
    ],
)
def test_labels_from_the_data(column, labels):
    found, decoded = labels_of(column, **CATEGORY)
    assert found == labels
    assert decoded == [str(one) for one in column]


def test_labels_that_are_declared_keep_their_order():
    found, decoded = labels_of(["b", "a"], categories={"c": ["c", "b", "a"]})
    assert (found, decoded) == (("c", "b", "a"), ["b", "a"])


def test_codes_zero_and_one_are_no_booleans(plain):
    columns = {
        "id": [1, 2, 3],
        "sex": ["f", "m", "f"],
        "day": np.array(["1970-01-01", "1970-01-02", "1970-01-01"], "M8[D]"),
        "time": np.array(["2010-01-01T00:00:00", "2010-01-01T00:00:01", "2010-01-01T00:00:01"], "M8[s]"),
    }
    table = plain.upload(columns, name="two", key="id", owner="o", categories={"sex": ["f", "m"]})
    assert [table.column(name).schema.kind for name in ("sex", "day", "time")] == [
        "category",
        "date",
        "datetime",
    ]
    np.testing.assert_array_equal(table.reveal("sex")["sex"], columns["sex"])


def test_labels_of_files_and_chunks(tmp_path):
    (tmp_path / "t.csv").write_text("id,c\n1, b\n2,NA\n3,a \n4,01\n")
    table = encode(tmp_path / "t.csv", name="t", key="id", owner="o", missing="indicator", **CATEGORY)
    assert table.schema.column("c").labels == ("01", "a", "b")
    np.testing.assert_array_equal(table.values, [[2, 0, 1, 0], [0, 1, 0, 0]])
    chunks = [{"id": [1, 2], "c": ["z", "b"]}, {"id": [3], "c": ["a"]}]
    table = encode(chunks, name="t", key="id", owner="o", **CATEGORY)
    assert table.schema.column("c").labels == ("a", "b", "z")
    np.testing.assert_array_equal(table.values, [[2, 1, 0]])


@pytest.mark.parametrize(
    ("column", "options", "message"),
    [
        (["a", "b"], {}, r'row 0 .*\'a\' is text.*types=\{"c": "category"\}'),
        (
            ["a", "x"],
            {"categories": {"c": ["a", "b"]}},
            r"row 1 .*'x' is none of its declared labels 'a', 'b'",
        ),
        (["a", "b"], {**CATEGORY, "min_count": 2}, r"label 'a' is that of 1 rows, fewer than min_count=2"),
        ([0.5, 1.5], CATEGORY, "row 0 .*float, and labels are text or integers"),
        (["a", "b\u200b"], CATEGORY, "printable text"),
        *(
            ([f"a{char}b"], CATEGORY, "which nobody can see or tell from others; a label is printable text")
            for char in "\0\n\x7f\u00a0\u00ad\u034f\u061c\u115f\u200d\u202e\u2028\u2800\u3164\ufe0f\ufeff"
        ),
        (["\u3164"], {"categories": {"c": ["\u3164"]}}, "HANGUL FILLER"),
        (["a", "b\u0301 "], CATEGORY, "no space at either end"),
        ([f"{n}" for n in range(1001)], CATEGORY, "row 1000 .*more than 1000 different values"),
        (["a", None], CATEGORY, "row 1 .*missing"),
        ([None, None], {**CATEGORY, "missing": "indicator"}, "there are no labels; declare them"),
        (["a"], {"categories": {"c": ["a", "a"]}}, "the label 'a' twice"),
        (["a"], {"categories": {"c": []}}, "0 labels"),
        (["a"], {"categories": {"d": ["a"]}}, "no column 'd', which categories names"),
        (["a", "b"], {**CATEGORY, "ranges": {"c": (0, 1)}}, "only numbers and dates have a range"),
        ([1, 2], {"types": {"c": "text"}}, '"category", "date" or "datetime"'),
    ],
)
def test_what_makes_no_category(column, options, message):
    with pytest.raises(SchemaError, match=message):
        labels_of(column, **options)


def test_declared_labels_may_be_of_few_rows():
    assert labels_of(["a", "b"], categories={"c": ["a", "b"]}, min_count=2)[0] == ("a", "b")


def test_schemas_travel_and_older_ones_are_read():
    schema = encode(HOLES, name="t", key="id", owner="o", types=TYPES, missing="indicator").schema
    fields = schema.to_dict()
    assert TableSchema.from_dict(fields) == schema
    plain = TableSchema(
        "t", "o", (ColumnSchema("id", "key", key_type="integer"), ColumnSchema("x", "real", 3)), 2
    )
    fields = plain.to_dict()
    for column in fields["columns"]:
        del column["labels"]
    assert TableSchema.from_dict(fields) == plain
    with pytest.raises(SchemaError, match="only categories do"):
        ColumnSchema("x", "real", labels=("a",))
    with pytest.raises(SchemaError, match="only categories do"):
        ColumnSchema("x", "category")


def test_made_up_rows_have_labels_and_dates():
    frame = HOLES.assign(
        day=np.array(["2020-01-01", "2021-05-05"], "M8[D]")[FRAME.index % 2].tolist(),
        seen=pd.Timestamp("2020-01-01 07:00"),
    )
    options = {"types": TYPES, "missing": "indicator", "ranges": {"day": ("2019-01-01", "2022-01-01")}}
    schema = encode(frame, name="t", key="id", owner="o", **options).schema
    made = encode_for_upload(made_up_rows(schema, 50, 1), **upload_options(schema))
    assert made.schema.columns == schema.columns


# -- in a lake -----------------------------------------------------------------------------------------------


def test_conditions_on_labels(lake):
    table = put(lake)
    made = table.assign(
        one=table["stage"] == "II",
        other=table["stage"] != "II",
        some=table["stage"].isin(["I", "III"]),
        low=table["stage"].where(table["sick"], "I"),
    )
    found = made.reveal()
    stage, sick = FRAME["stage"], FRAME["sick"]
    np.testing.assert_array_equal(found["one"], stage == "II")
    np.testing.assert_array_equal(found["other"], stage != "II")
    np.testing.assert_array_equal(found["some"], stage != "II")
    np.testing.assert_array_equal(found["low"], np.where(sick, stage, "I"))
    np.testing.assert_array_equal(found["stage"], stage)
    assert made.column("low").schema.labels == ("I", "II", "III")
    assert "category of 3" in repr(table)
    assert table["stage"].labels == ("I", "II", "III")


def test_indicators_need_no_list(plain):
    table = put(plain)
    found = table.assign(**table["stage"].one_hot(reference="I")).reveal()
    expected = pd.get_dummies(FRAME["stage"], prefix="stage", drop_first=True)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
    assert list(table["stage"].one_hot()) == ["stage_I", "stage_II", "stage_III"]
    assert list(table["sick"].one_hot()) == ["sick_0", "sick_1"]
    with pytest.raises(SchemaError, match="'IV' is none of the categories"):
        table["stage"].one_hot(reference="IV")
    with pytest.raises(SchemaError, match="x is real and has no labels"):
        table["x"].one_hot()


def test_codes_of_two_owners_are_aligned_by_label(lake):
    mine = put(lake)
    theirs = FRAME.assign(judged=FRAME["stage"].where(FRAME["sick"], "IV"))[["id", "judged"]]
    labels = {"judged": ["IV", "III", "II", "I"]}
    other = put(lake, theirs, "other", types=None, categories=labels)
    joined = mine.join(other, on="id")
    found = joined.assign(
        same=joined["stage"] == joined["judged"],
        taken=joined["stage"].where(joined["sick"], joined["judged"]),
        renamed=joined["judged"].recoded(["I", "II", "III", "IV", "V"]),
    ).reveal()
    np.testing.assert_array_equal(found["same"], found["stage"] == found["judged"])
    np.testing.assert_array_equal(found["taken"], np.where(found["sick"], found["stage"], found["judged"]))
    np.testing.assert_array_equal(found["renamed"], found["judged"])
    with pytest.raises(SchemaError, match="nothing would stand for rows of 'IV'"):
        joined["judged"].recoded(["I", "II", "III"])


class _Counted(str):
    """A label that counts how often it is compared with another."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        _Counted.compared += 1
        return str.__eq__(self, other)


def test_many_labels_are_looked_up_and_not_gone_through(plain):
    labels = [f"label {number}" for number in range(1000)]
    columns = {"id": [1, 2], "a": labels[:2], "b": labels[:2]}
    table = plain.upload(
        columns, name="many", key="id", owner="o", categories={"a": labels, "b": labels[::-1]}
    )
    given = [_Counted(label) for label in labels]
    _Counted.compared = 0
    for made in (table["a"].recoded(given[::-1]), table["b"].isin(given), table["a"] == table["b"]):
        assert made.made is not None
    assert 0 < _Counted.compared < 20 * len(labels)


def test_missing_labels(plain):
    table = put(plain, HOLES, missing="indicator")
    stage = HOLES["stage"]
    filled = table.assign(stage=table["stage"].fillna("III"))
    np.testing.assert_array_equal(filled.reveal("stage")["stage"], stage.fillna("III"))
    assert filled.column("stage").schema.missing is None
    kept = table.filter(table["stage"] != "I")
    expected = FRAME["x"][stage.notna() & (stage != "I")]
    assert kept.describe(["x"])["x"]["count"] == len(expected)
    counts = table.crosstab("stage", "sick").to_frame()
    expected = pd.crosstab(stage, HOLES["sick"])
    np.testing.assert_array_equal(counts, expected)
    assert list(counts.index) == ["I", "II", "III"]


def test_cross_tables_have_labels(plain):
    table = put(plain)
    counted = table.crosstab("stage", "sick", categories={"stage": ["III", "I"]})
    expected = pd.crosstab(FRAME["stage"], FRAME["sick"]).loc[["III", "I"]]
    np.testing.assert_array_equal(counted.counts, expected)
    assert str(counted).splitlines()[2].split()[0] == "III"
    with pytest.raises(SchemaError, match="'IV' is none of its labels"):
        table.crosstab("stage", "sick", categories={"stage": ["IV"]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: t["stage"] + 1, "its codes are not computed on"),
        (lambda t: t["x"] * t["stage"], "stage is a category, and x is real"),
        (lambda t: t["stage"] < "II", "its codes are not computed on"),
        (lambda t: t["stage"] == "IV", "'IV' is none of the labels 'I', 'II', 'III'"),
        (lambda t: t["stage"] == 1, "1 is none of the labels"),
        (lambda t: t["stage"].isin(["I", 2]), "2 is none of the labels"),
        (lambda t: t["stage"] == t["n"], "stage is a category, and n is integer"),
        (lambda t: t["stage"] != t["sick"], "stage is a category, and sick is boolean"),
        (lambda t: t["n"] == t["stage"], "stage is a category, and n is integer"),
        (lambda t: t["stage"].where(t["sick"], t["n"]), "stage is a category, and n is integer"),
        (lambda t: t["stage"].where(condition=t["sick"], other=t["x"]), "stage is a category, and x is real"),
        (lambda t: t["n"].where(t["sick"], t["stage"]), "stage is a category, and n is integer"),
        (lambda t: t["x"].where(t["stage"], 1), "stage is category, not a condition"),
        (lambda t: t["stage"].where(t["stage"], "I"), "stage is category, not a condition"),
        (lambda t: t["n"].recoded(["0", "1"]), "n is integer and has no labels to be recoded"),
        (lambda t: t["stage"].cut([-1, 1, 5]), "stage is a category, and bands are of numbers"),
        (lambda t: t["stage"].clip(0, 1), "its codes are not computed on"),
        (lambda t: t["stage"].dt, "stage is category, not a date"),
        (lambda t: t["stage"] & t["sick"], "its codes are not computed on"),
        (lambda t: t.filter(t["stage"]), "is category, not a condition|is integer, not a condition"),
        (lambda t: t.describe(["stage"]), "column 'stage' is a category, and not a column of numbers"),
        (lambda t: t.corr(["stage", "x"]), "column 'stage' is a category"),
        (lambda t: StandardScaler(columns=["stage"]).fit(t), "column 'stage' is a category"),
        (lambda t: LogisticRegression().fit(t, "sick"), "column 'stage' is a category"),
        (lambda t: t.split(stratify="stage"), "is category, not 0/1"),
    ],
)
def test_codes_are_no_numbers(plain, make, message):
    with pytest.raises(SchemaError, match=message):
        make(put(plain))


@pytest.mark.cases
def test_booleans_with_missing_values(lake):
    flags = [[True, False, None][n % 3] for n in range(ROWS)]
    frame = FRAME.assign(flag=pd.array(flags, "boolean"), sick=pd.Series(flags, dtype=object))
    table = put(lake, frame, missing="indicator")
    for name in ("flag", "sick"):
        assert table.column(name).schema.kind == "boolean"
        described = table.describe([name], statistics=["mean"])[name]
        assert described == {"count": 40, "mean": pytest.approx(0.5)}
        assert table.filter(table[name]).describe(["x"])["x"]["count"] == 20
        assert table.filter(~table[name]).describe(["x"])["x"]["count"] == 20
    made = table.assign(
        yes=table["flag"].fillna(True), no=table["flag"].fillna(0), either=table["flag"] | table["sick"]
    )
    found = made.reveal(["yes", "no", "either_missing"])
    expected = pd.Series(flags, dtype="boolean")
    assert [made.column(name).schema.kind for name in ("yes", "no")] == ["boolean", "boolean"]
    np.testing.assert_array_equal(found["yes"], expected.fillna(True))
    np.testing.assert_array_equal(found["no"], expected.fillna(False))
    np.testing.assert_array_equal(found["either_missing"], expected.isna())


def test_text_is_no_number(plain):
    with pytest.raises(PlanError, match="'a' is neither a number nor a column"):
        put(plain)["x"] == "a"  # noqa: B015


def test_statistics_leave_categories_out_by_default(plain):
    table = put(plain)
    assert list(table.describe().to_frame()) == ["sick", "x", "n"]
    assert table.corr().names == ("sick", "x", "n")
    scaled = StandardScaler().fit_transform(table)
    model = LogisticRegression().fit(
        scaled.assign(**scaled["stage"].one_hot(reference="I")),
        "sick",
        features=["x", "stage_II", "stage_III"],
    )
    assert list(model.feature_names_in_) == ["x", "stage_II", "stage_III"]
