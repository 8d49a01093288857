"""Commands of who owns data: `upload`, `tables`, `drop`, `results`."""

from __future__ import annotations

import csv
import datetime as dt
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer
from rich.console import Console
from rich.table import Table

import tercet
from tercet.commands.console import DEFAULT_CLUSTER, ClusterPath, IdentityPath, at_nodes, say, sentences
from tercet.errors import SchemaError

if TYPE_CHECKING:
    from tercet.members.rules import Plans
    from tercet.plans.types import DisclosureClass, Sizes

app = typer.Typer()

Declared = Literal["real", "integer", "boolean", "string", "category", "date", "datetime"]

ROWS_AT_ONCE = 1 << 16
"""Rows that are fetched from a database at a time."""


@app.command()
def upload(
    source: Annotated[str, typer.Argument(help="A CSV or Parquet file, or a database URL with --query.")],
    name: Annotated[str, typer.Option(help="Name of the table in the lake.")],
    key: Annotated[list[str], typer.Option(help="Column that links rows; again for more.")],
    identity: IdentityPath,
    cluster: ClusterPath = DEFAULT_CLUSTER,
    query: Annotated[str, typer.Option(help="What to read from the database.", metavar="SQL")] = "",
    column: Annotated[list[str] | None, typer.Option(help="Only this column; again for more.")] = None,
    reader: Annotated[
        list[str] | None, typer.Option(help="Only this member may use it; again for more.")
    ] = None,
    plans: Annotated[
        str, typer.Option(help="'approved': you sign each plan first; 'any': readers run what they like.")
    ] = "approved",
    min_count: Annotated[int, typer.Option(help="Rows that a revealed figure must rest on at least.")] = 1,
    within: Annotated[
        list[str] | None,
        typer.Option(
            "--range", help="Public bounds, as in age=0:120 or born=1900-01-01:2025-12-31; again for more."
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--type", help="What a column holds, as in id=string or age=real; again for more."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            help="Labels of a category, in their order, as in stage=I,II,III; again for more.",
            metavar="COLUMN=LABELS",
        ),
    ] = None,
    normalise: Annotated[
        list[str] | None,
        typer.Option(
            help="What is done to text keys, as all owners agree: strip, case, nfc, zeros; again for more."
        ),
    ] = None,
    missing: Annotated[
        str, typer.Option(help="'refuse' missing values, or 'indicator': store where they are.")
    ] = "refuse",
    repeats: Annotated[bool, typer.Option("--repeats", help="Let several rows have the same key.")] = False,
    rows: Annotated[bool, typer.Option("--rows", help="Allow that single rows are revealed.")] = False,
    days: Annotated[float | None, typer.Option(help="Forget the table after so many days.")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COMPUTATION",
            help="This computation needs no signature, or this group: tables, statistics, models, "
            "predictions, rows; again for more.",
        ),
    ] = None,
    allow_class: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Disclosures of this class need no signature; again for more. "
            "Of check, count, figure, model, rows, usually check, count, figure.",
        ),
    ] = None,
    allow_column: Annotated[
        list[str] | None, typer.Option(help="Only this column may be used; again for more.")
    ] = None,
    receiver: Annotated[
        list[str] | None, typer.Option(help="Results may go to this member only; again for more.")
    ] = None,
    parameters_per_row: Annotated[
        float, typer.Option(help="A model may have at most so many parameters for each row.")
    ] = 0.33,
    sizes: Annotated[
        str,
        typer.Option(help="What nodes may be told of how many rows match: 'exact', 'noisy' or 'hidden'."),
    ] = "exact",
    uses: Annotated[int | None, typer.Option(help="So many computations may use the table.")] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DATE", help="Last day of use, in UTC, as in 2027-01-31.")
    ] = None,
) -> None:
    """Put a table into the lake, secret-shared: no node sees a value."""
    with sentences():
        if "://" in source and not query:
            raise SchemaError(f"{source} is the URL of a database; say what to read with --query")
        allowed = tercet.Allow(
            tuple(reader or ()),
            _plans(plans),
            rows,
            days,
            computations=tuple(allow or ()),
            columns=tuple(allow_column or ()),
            classes=None if allow_class is None else tuple(map(_class, allow_class)),
            receivers=tuple(receiver or ()),
            parameters_per_row=parameters_per_row,
            sizes=_sizes(sizes),
            uses=uses,
            until=None if until is None else _day(until),
        )
        with tercet.connect(cluster, identity=identity) as lake:
            table = lake.upload(
                read_query(source, query) if query else Path(source),
                name=name,
                key=key,
                owner=lake.cluster.caller,
                columns=column,
                min_count=min_count,
                unique=not repeats,
                types=types_of(kind or ()),
                ranges=ranges_of(within or ()),
                missing=_missing(missing),
                categories=labels_of(labels or ()),
                normalise=tuple(normalise or ()),
                allow=allowed,
            )
            say(f"{table}")


def types_of(given: Sequence[str]) -> dict[str, Declared]:
    """Types by column from words such as `id=string`. Raises SchemaError for others."""
    found: dict[str, Declared] = {}
    for word in given:
        name, _, declared = word.rpartition("=")
        if not name or declared not in get_args(Declared):
            kinds = ", ".join(get_args(Declared))
            raise SchemaError(f"--type {word} is no type; write it as in id=string, with one of {kinds}")
        found[name] = cast("Declared", declared)
    return found


def ranges_of(given: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Bounds by column from words such as `age=0:120`, dates as text. Raises SchemaError for others."""
    found: dict[str, tuple[Any, Any]] = {}
    for word in given:
        name, _, ends = word.rpartition("=")
        low, _, high = ends.partition(":")
        try:
            found[name] = (low, high) if _is_date(low) and _is_date(high) else (float(low), float(high))
        except ValueError as error:
            raise SchemaError(
                f"--range {word} is no range; write it as in age=0:120 or born=1900-01-01:2025-12-31"
            ) from error
    return found


def _is_date(word: str) -> bool:
    return re.fullmatch(r"\d{4}-\d\d-\d\d", word) is not None


def labels_of(given: Sequence[str]) -> dict[str, list[str]]:
    """Labels by column from words such as `stage=I,II,III`. Raises SchemaError for others.

    A label with a comma stands in quotes, as in a CSV file.
    """
    found: dict[str, list[str]] = {}
    for word in given:
        name, _, labels = word.partition("=")
        try:
            (found[name],) = csv.reader([labels], strict=True)
        except (ValueError, csv.Error):
            found[name] = []
        if not name or not found[name]:
            raise SchemaError(f"--labels {word} are no labels; write them as in stage=I,II,III")
    return found


def _missing(given: str) -> Literal["refuse", "indicator"]:
    if given not in ("refuse", "indicator"):
        raise SchemaError(f"--missing {given} is not known; write 'refuse' or 'indicator'")
    return "indicator" if given == "indicator" else "refuse"


def _class(given: str) -> DisclosureClass:
    from tercet.plans.types import CLASSES

    for known in CLASSES:
        if given == known:
            return known
    raise SchemaError(f"--allow-class {given} is not known; write one of {', '.join(CLASSES)}")


def _day(given: str) -> dt.date:
    try:
        return dt.date.fromisoformat(given)
    except ValueError as error:
        raise SchemaError(f"--until {given} is no date; write it as in 2027-01-31") from error


def _plans(given: str) -> Plans:
    if given not in ("any", "approved"):
        raise SchemaError(f"--plans {given} is not known; write 'any' or 'approved'")
    return "any" if given == "any" else "approved"


def _sizes(given: str) -> Sizes:
    from tercet.plans.types import SIZES

    for one in SIZES:
        if given == one:
            return one
    raise SchemaError(f"--sizes {given} is not known; write one of {', '.join(SIZES)}")


def read_query(url: str, query: str) -> Iterator[dict[str, list[Any]]]:
    """Columns of what a query gives, some rows at a time. Raises SchemaError with what the database says."""
    import sqlalchemy as sa

    try:
        engine = sa.create_engine(url)
        with engine.connect().execution_options(stream_results=True) as connection:
            result = connection.execute(sa.text(query))
            names = list(result.keys())
            yield {name: [] for name in names}
            for rows in result.partitions(ROWS_AT_ONCE):
                yield {name: [row[place] for row in rows] for place, name in enumerate(names)}
        engine.dispose()
    except (sa.exc.SQLAlchemyError, ImportError) as error:
        raise SchemaError(
            f"the query could not be run: {getattr(error, 'orig', None) or error}; check the URL and the "
            "query, and that the database's driver is installed"
        ) from error


@app.command()
def tables(identity: IdentityPath, cluster: ClusterPath = DEFAULT_CLUSTER) -> None:
    """List the tables of the lake, whose they are, and what their owners allow."""
    from tercet.members.rules import TABLE

    with sentences(), at_nodes(cluster, identity) as (desk, wait):
        found = [one for one in wait(desk.entries) if one.kind == TABLE]
    listing = Table(box=None, pad_edge=False)
    for heading in ("table", "owner", "allowed", "until"):
        listing.add_column(heading)
    for one in found:
        until = "" if one.expires is None else f"{dt.datetime.fromtimestamp(one.expires, dt.UTC):%Y-%m-%d}"
        listing.add_row(one.name, one.owner, str(one.rules), until)
    Console().print(listing, highlight=False, markup=False)


@app.command()
def drop(
    name: Annotated[str, typer.Argument(help="A table of yours.")],
    identity: IdentityPath,
    cluster: ClusterPath = DEFAULT_CLUSTER,
) -> None:
    """Have all nodes forget a table, for good."""
    from tercet.members.rules import TABLE

    with sentences(), at_nodes(cluster, identity) as (desk, wait):
        wait(desk.forget, TABLE, name)


@app.command()
def results(identity: IdentityPath, cluster: ClusterPath = DEFAULT_CLUSTER) -> None:
    """Fetch what plans of other members have revealed to you; the nodes keep it no longer."""
    with sentences(), at_nodes(cluster, identity) as (desk, wait):
        for one in wait(desk.received):
            say(f"{one.name}, from {one.sender} ({one.plan}): {one.values}")
