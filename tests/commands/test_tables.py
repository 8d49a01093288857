"""What owners write on the command line about their columns."""

import contextlib
import datetime as dt
import warnings
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from tercet import Allow
from tercet.commands.tables import app, labels_of, ranges_of, read_query, types_of
from tercet.errors import KeyWarning, SchemaError
from tercet.ml.ingest import encode

pytestmark = pytest.mark.smoke


def test_ranges_are_read():
    assert ranges_of([]) == {}
    assert ranges_of(["age=0:120", "a=b=-1.5:1e3"]) == {"age": (0, 120), "a=b": (-1.5, 1000)}
    assert ranges_of(["born=1900-01-01:2025-12-31"]) == {"born": ("1900-01-01", "2025-12-31")}


@pytest.mark.parametrize("word", ["age", "age=5", "age=0:x", "age=0:1:2", "", "a=1900-01-01:5"])
def test_what_is_no_range_is_refused(word):
    with pytest.raises(SchemaError, match="is no range; write it as in age=0:120"):
        ranges_of([word])


def test_types_are_read():
    assert types_of(["id=string", "a=b=real"]) == {"id": "string", "a=b": "real"}


@pytest.mark.parametrize("word", ["id", "id=text", "=real", ""])
def test_what_is_no_type_is_refused(word):
    with pytest.raises(SchemaError, match="is no type; write it as in id=string"):
        types_of([word])


def test_labels_are_read():
    assert labels_of(["stage=I,II,III", 'drug="a, b",c=d']) == {
        "stage": ["I", "II", "III"],
        "drug": ["a, b", "c=d"],
    }


@pytest.mark.parametrize("word", ["stage", "stage=", "=I,II", "", 'stage="I', "stage=I\nII"])
def test_what_are_no_labels_is_refused(word):
    with pytest.raises(SchemaError, match="are no labels; write them as in stage=I,II,III"):
        labels_of([word])


def test_columns_of_an_upload(monkeypatch, tmp_path):
    """What is said of columns is what Python's upload is given, which takes it."""
    given = {}

    class Lake:
        cluster = SimpleNamespace(caller="clinic")

        def upload(self, source, **options):
            given.update(options)

    monkeypatch.setattr("tercet.connect", lambda *_, **__: contextlib.nullcontext(Lake()))
    base = ["upload", "ages.csv", "--name", "ages", "--key", "id", "--identity", "clinic.key"]
    words = ["--labels", "stage=I,II", "--normalise", "strip", "--normalise", "case", "--type", "born=date"]
    done = CliRunner().invoke(app, [*base, *words, "--range", "born=1900-01-01:2025-12-31"])
    assert done.exit_code == 0, done.output
    (tmp_path / "ages.csv").write_text("id,stage,born\n a,I,1950-02-03\nB,II,1960-01-01\n")
    options = {name: given[name] for name in ("categories", "normalise", "types", "ranges", "key", "name")}
    schema = encode(tmp_path / "ages.csv", owner="clinic", **options).schema
    assert {one.name: one.kind for one in schema.columns} == {
        "id": "key",
        "stage": "category",
        "born": "date",
    }
    assert schema.columns[0].normalise == ("strip", "case")


def test_findings_on_keys_are_lines(monkeypatch, tmp_path):
    """An owner who uploads a file reads them on her terminal, a line each."""

    class Lake:
        cluster = SimpleNamespace(caller="clinic")

        def upload(self, source, **options):
            for finding in encode(source, **{n: options[n] for n in ("name", "key", "owner")}).findings:
                warnings.warn(finding, KeyWarning, stacklevel=1)

    monkeypatch.setattr("tercet.connect", lambda *_, **__: contextlib.nullcontext(Lake()))
    (tmp_path / "ages.csv").write_text("id,age\nann,1\nAnn,2\nB,3\n")
    words = [
        "upload",
        str(tmp_path / "ages.csv"),
        "--name",
        "ages",
        "--key",
        "id",
        "--identity",
        "clinic.key",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("always", KeyWarning)
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    (line,) = done.stderr.splitlines()
    assert line.startswith("warning: table 'ages', key 'id': of 3 rows that were looked at, 1 has the key of")


def test_the_command_knows_them():
    shown = CliRunner().invoke(app, ["upload", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    assert "--range" in shown
    assert "--type" in shown
    assert "--missing" in shown
    for one in ("allow", "allow-class", "allow-column", "receiver", "parameters-per-row", "uses", "until"):
        assert f"--{one} " in shown


RULES = ["--allow", "tables", "--allow", "statistics", "--allow-class", "figure", "--allow-column", "age"]
RULES += [
    "--receiver",
    "ann",
    "--parameters-per-row",
    "0.1",
    "--sizes",
    "noisy",
    "--uses",
    "20",
    "--until",
    "2027-01-31",
]


def test_rules_of_an_upload(monkeypatch):
    given = {}

    class Lake:
        cluster = SimpleNamespace(caller="clinic")

        def upload(self, source, **options):
            given.update(options)

    monkeypatch.setattr("tercet.connect", lambda *_, **__: contextlib.nullcontext(Lake()))
    base = ["upload", "ages.csv", "--name", "ages", "--key", "id", "--identity", "clinic.key"]
    assert CliRunner().invoke(app, [*base, *RULES]).exit_code == 0
    assert given["allow"] == Allow(
        computations=("tables", "statistics"),
        classes=("figure",),
        columns=("age",),
        receivers=("ann",),
        parameters_per_row=0.1,
        sizes="noisy",
        uses=20,
        until=dt.date(2027, 1, 31),
    )
    assert CliRunner().invoke(app, base).exit_code == 0
    assert given["allow"] == Allow()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--allow-class", "figures"], "--allow-class figures is not known; write one of check, count"),
        (["--until", "tomorrow"], "--until tomorrow is no date; write it as in 2027-01-31"),
        (["--plans", "any", "--allow", "fit"], "leave plans at 'approved' to name those that are free"),
        (["--sizes", "few"], "--sizes few is not known; write one of exact, noisy, hidden"),
        (["--uses", "0"], "uses=0 is not a whole number of at least 1"),
        (["--parameters-per-row", "-1"], "parameters_per_row=-1.0 is not a positive, finite number"),
    ],
)
def test_rules_that_mean_nothing(options, told):
    base = ["upload", "ages.csv", "--name", "ages", "--key", "id", "--identity", "clinic.key"]
    done = CliRunner().invoke(app, [*base, *options], env={"COLUMNS": "300"})
    assert done.exit_code == 1
    assert told in " ".join(done.stderr.split())


def test_queries_are_read_some_rows_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("tercet.commands.tables.ROWS_AT_ONCE", 300)
    url = f"sqlite:///{tmp_path}/claims.sqlite"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE claims (id INTEGER, cost REAL)"))
        rows = [{"id": i, "cost": None if i == 900 else i / 4} for i in range(1000)]
        connection.execute(sa.text("INSERT INTO claims VALUES (:id, :cost)"), rows)
    engine.dispose()
    chunks = list(read_query(url, "SELECT * FROM claims"))
    assert [len(chunk["id"]) for chunk in chunks] == [0, 300, 300, 300, 100]
    table = encode(
        read_query(url, "SELECT * FROM claims"), name="claims", key="id", owner="o", missing="indicator"
    )
    whole = {"id": range(1000), "cost": [row["cost"] for row in rows]}
    expected = encode(whole, name="claims", key="id", owner="o", missing="indicator")
    assert table.schema == expected.schema
    assert table.content == expected.content
    none = encode(read_query(url, "SELECT * FROM claims WHERE id < 0"), name="claims", key="id", owner="o")
    assert none.schema.rows == 0
    with pytest.raises(SchemaError, match="the query could not be run: no such table: bills"):
        list(read_query(url, "SELECT * FROM bills"))


def test_a_database_without_a_query():
    options = ["--name", "a", "--key", "id", "--identity", "ann.key"]
    done = CliRunner().invoke(app, ["upload", "sqlite:///claims.sqlite", *options])
    assert done.exit_code == 1
    assert "say what to read with --query" in done.stderr
