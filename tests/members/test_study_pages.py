"""What nodes say of a study: every request, whose columns, what comes out and to whom; in their own words."""

from __future__ import annotations

import pytest

from tercet.errors import ConsentError
from tercet.members.studies import Asked, Study
from tercet.members.study_pages import DOES, Facts, TableFacts, origins, page, row_origins
from tests.members.test_studies import FIT, JOIN, REVEAL, UNTIL, study

FACTS = Facts(
    {
        "clinic": TableFacts("clinic", ("patient", "texture", "malignant")),
        "laboratory": TableFacts("lab", ("patient", "radius")),
        "new": TableFacts("ann", ("patient", "age")),
    },
    {"risk": ("laboratory", "new")},
)


def test_a_page():
    split = Asked("split", {"table": {"$result": [1, []]}, "test_size": 0.3, "stratify": "malignant"})
    fit = Asked("fit", {**FIT.arguments, "table": {"$result": [2, [0]]}})
    reveal = Asked("reveal_model", {"model": {"$result": [3, ["model"]]}, "to": "clinic"})
    made = study(JOIN, split, fit, reveal)
    assert page(made, FACTS) == [
        f"study {made.number} of ann",
        "for the purpose, in the analyst's words: 'risk of tumours'",
        "to be run 2 times, until 2033-05-18 03:33 UTC, whatever rows the tables hold then",
        "it reads table clinic, clinic's",
        "it reads table laboratory, lab's",
        "what comes out goes to ann, clinic",
        "no value of a single row comes out; the most that does is the parameters of models",
        "4 requests:",
        "  1. join: links rows with the same key; it reads patient of clinic (clinic's); patient of "
        "laboratory (lab's). To ann: the number of rows that match, unless sizes are hidden. "
        "Given: tables=[table 'clinic', table 'laboratory'], on='patient'",
        "  2. split: splits rows at random; it reads malignant of clinic (clinic's). To ann: bits that say "
        "whether it worked. Given: table=result of request 1, test_size=0.3, stratify='malignant'",
        "  3. fit: fits a model, which stays secret; it reads texture, malignant of clinic (clinic's); "
        "radius of laboratory (lab's). To ann: bits that say whether it worked. Given: "
        "model=LogisticRegression(C=1.0, penalty='l2', solver='newton'), table=result of request 2, 0, "
        "target='malignant', features=['texture', 'radius']",
        "  4. reveal_model: reveals a model; it reads what was learned from clinic (clinic's), laboratory "
        "(lab's). To clinic: all coefficients of it. Given: model=result of request 3, 'model'",
    ]


def test_single_rows_are_pointed_out():
    rows = Asked("reveal_rows", {"self": {"$table": "new"}, "names": ["age"], "to": "clinic"})
    told = page(study(rows), FACTS)
    assert "NOTE: request 1 shows clinic a value for each row of new (ann's)" in told
    assert not any("no value of a single row" in line for line in told)
    assert "To clinic: THE VALUES OF EACH ROW. " in told[-1]


def test_predictions_are_by_row_of_the_table_that_is_predicted():
    fit = Asked("fit", {**FIT.arguments, "table": {"$table": "clinic"}})
    predict = Asked("predict", {"model": {"$result": [1, []]}, "table": {"$table": "new"}})
    shown = Asked("reveal_column", {"self": {"$result": [2, []]}})
    made = study(fit, predict, shown)
    assert row_origins(made) == [(), ("new",), ("new",)]
    assert origins(made, FACTS)[-1] == ("clinic", "new")
    assert "NOTE: request 3 shows ann a value for each row of new (ann's)" in page(made, FACTS)


RADIUS = [["column", ["radius"], {}], ["__mul__", [{"$node": 0}, {"$node": 0}], {}]]
SIZE = [*RADIUS, ["__truediv__", [{"$node": 1}, 100], {}], ["clip", [{"$node": 2}], {"upper": 9}]]


def assigned(position, name, *operations):
    """A column that is computed from a request's table."""
    table = {"$result": [position, []]}
    expression = {"$expression": [table, list(operations)]}
    return Asked("assign", {"table": table, "expressions": {name: expression}})


def test_computed_columns_come_from_those_of_tables():
    """Whatever they are called: what comes from a column of an owner's is said to read that."""
    first = assigned(1, "size", *SIZE)
    second = assigned(2, "texture", ["column", ["size"], {}], ["column", ["patient"], {}])
    fit = Asked("fit", {"table": {"$result": [3, []]}, "target": "malignant", "features": ["texture"]})
    unknown = Asked("describe", {"table": {"$result": [3, []]}, "columns": ["made_elsewhere"]})
    told = page(study(JOIN, first, second, fit, unknown), FACTS)[-4:]
    assert "it reads radius of laboratory (lab's). " in told[0]
    assert "expressions={size: clip(((radius * radius) / 100), upper=9)}" in told[0]
    assert "it reads patient of clinic (clinic's); patient, radius of laboratory (lab's). " in told[1]
    assert "it reads patient, malignant of clinic (clinic's); patient, radius of laboratory" in told[2]
    assert "it reads all columns of clinic (clinic's); all columns of laboratory (lab's). " in told[3]


def test_chosen_columns_are_all_that_a_fit_reads():
    some = {"$columns": [{"$table": "clinic"}, ["texture", "malignant"]]}
    fit = Asked("fit", {"table": some, "target": "malignant", "features": None})
    predict = Asked("predict", {"self": {"$result": [1, ["model"]]}, "table": {"$table": "new"}})
    told = page(study(fit, predict), FACTS)[-2:]
    assert "it reads texture, malignant of clinic (clinic's). " in told[0]
    assert "Given: table=['texture', 'malignant'] of table 'clinic', target='malignant'" in told[0]
    assert "it reads all columns of new (ann's); what was learned from clinic (clinic's). " in told[1]


def test_other_names_hide_no_column():
    """What a column is called now is what it was called by its owner, also where two have changed places."""
    swapped = {"$renamed": [{"$table": "clinic"}, {"texture": "malignant", "malignant": "texture"}]}
    once = Asked("describe", {"table": swapped, "columns": ["malignant"]})
    anew = {"$renamed": [{"$renamed": [{"$table": "clinic"}, {"texture": "a"}]}, {"a": "b"}]}
    twice = Asked("describe", {"table": anew, "columns": ["b"]})
    elsewhere = Asked(
        "join", {"tables": [{"$renamed": [{"$table": "clinic"}, {"texture": "age"}]}, {"$table": "new"}]}
    )
    read = Asked("describe", {"table": {"$result": [3, []]}, "columns": ["age"]})
    told = page(study(once, twice, elsewhere, read), FACTS)[-4:]
    assert "it reads texture, malignant of clinic (clinic's). " in told[0]
    assert "table 'clinic' with texture as 'malignant', malignant as 'texture'" in told[0]
    assert "it reads texture of clinic (clinic's). " in told[1]
    assert "it reads texture of clinic (clinic's); age of new (ann's). " in told[3]


def test_models_lead_to_their_tables():
    predict = Asked(
        "predict", {"model": {"$model": "risk"}, "table": {"$columns": [{"$table": "new"}, ["age"]]}}
    )
    made = study(predict, Asked("reveal_column", {"column": {"$result": [1, []]}}))
    assert origins(made, FACTS) == [("laboratory", "new")] * 2
    assert "it reads model risk, made from laboratory, new" in page(made, FACTS)
    assert "it reads table laboratory, lab's" in page(made, FACTS)


@pytest.mark.parametrize("features", [None, "not given"])
def test_what_is_left_open_means_all_columns(features):
    given = {name: one for name, one in FIT.arguments.items() if name != "features"}
    given |= {"table": {"$table": "clinic"}, "target": "malignant"} | (
        {"features": None} if not features else {}
    )
    line = page(study(Asked("fit", given)), FACTS)[-1]
    assert ("reads all columns of clinic" in line) == (features is None)


def test_the_authors_words_stay_within_quotes():
    hostile = "harmless\n  9. nothing comes out\u202e"
    assigned = {"table": {"$table": "clinic"}, "expressions": {hostile: 1.0}, hostile: hostile}
    told = page(study(Asked("assign", assigned), purpose=hostile), FACTS)
    assert all("\n" not in line and "\u202e" not in line for line in told)
    assert len(told) == 8
    with pytest.raises(ConsentError, match="no computation 'nothing\\\\n'"):
        page(study(Asked("nothing\n", {})), FACTS)


def test_every_computation_has_sentences():
    for name, does in DOES.items():
        assert name.isidentifier()
        assert page(study(Asked(name, {"table": {"$table": "clinic"}})), FACTS)[-1].count(
            f"To ann: {does.gives}. "
        )


def test_a_table_that_is_gone_is_said_to_be():
    made = Study.of([JOIN, REVEAL][:1], purpose="p", analyst="ann", uses=1, until=UNTIL)
    told = page(made, Facts({}, {}))
    assert "it reads table clinic, a table that is not there" in told
    assert "to be run once, until 2033-05-18 03:33 UTC, whatever rows the tables hold then" in told


def test_groups_read_the_columns_that_they_name():
    table = {"$table": "clinic"}
    given = {"table": table, "by": ["malignant"], "categories": None, "aggregates": {"texture": ["mean"]}}
    sums = {"table": table, "aggregates": {"texture": ["sum"]}, "sizes": "exact", "scales": None}
    told = page(study(Asked("groupby", given), Asked("group_rows", sums)), FACTS)[-2:]
    assert "it reads texture, malignant of clinic (clinic's). To ann: figures by category." in told[0]
    assert (
        "it reads texture of clinic (clinic's). To ann: the number of keys, unless sizes are hidden."
        in told[1]
    )
