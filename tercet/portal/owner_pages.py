"""Pages of who owns data: overview, tables and who used them, uploads with their rules, results, history."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import trio
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from tercet.actors.line import plain_errors
from tercet.client.allow import Allow
from tercet.client.driver import schema_of
from tercet.client.member_api import Kept, Received
from tercet.errors import ConsentError, SchemaError, StorageError, TercetError
from tercet.members.rules import GROUPS, TABLE
from tercet.ml.reading import Declared
from tercet.portal.drafts import KINDS, Draft, Found
from tercet.portal.rendering import (
    Listed,
    Said,
    download,
    form_of,
    live,
    page,
    portal_of,
    read_logs,
    see,
    table_of,
)
from tercet.portal.state import Portal

MOST_LISTED = 12
"""Of each kind, what the overview lists; pages of their own have the rest."""
MOST_SHOWN = 24
"""Numbers of a result on the page; all of them are in its file."""
LEAST = 20
"""Rows that figures rest on at least, if the owner does not change it."""
GROUP_SENTENCES: Mapping[str, str] = {
    "tables": "joining, splitting, filtering and computing columns",
    "statistics": "counts, means, correlations and metrics",
    "models": "fitting models and telling their coefficients",
    "predictions": "predicting by models",
}


SEE_STUDIES = ("analyst", "owner", "auditor")
"""Roles of members to whom nodes show studies."""


async def overview(request: Request) -> Response:
    """Where to begin: what waits for this member, her tables, and how the nodes are."""
    portal = portal_of(request)
    lake = await portal.lake()
    studies = await lake.studies() if portal.has(*SEE_STUDIES) else []
    async with plain_errors(), trio.open_nursery() as nursery:
        nursery.start_soon(portal.nodes.look)  # which asks them by links of its own
        tables, plans = await lake.tables(), await lake.plans()
    mine = [one for one in studies if portal.name in one.missing and not one.refusal]
    return page(
        request,
        "overview.html",
        most=MOST_LISTED,
        waiting=mine,
        plans=[one for one in plans if portal.name in one.missing],
        asked=[one for one in studies if one.analyst == portal.name],
        tables=[one for one in tables if one.owner == portal.name],
        others=sum(one.owner != portal.name for one in tables),
        nodes=await portal.nodes.look(),
    )


async def tables(request: Request) -> Response:
    """All tables of the lake."""
    portal = portal_of(request)
    words = request.query_params.get("q", "").lower().split()
    found = [
        one
        for one in await (await portal.lake()).tables()
        if all(word in f"{one.name} {one.owner}".lower() for word in words)
    ]
    return page(request, "tables.html", listed=Listed.of(request, found), words=" ".join(words))


async def table(request: Request) -> Response:
    """One table: what everybody knows of it, its rules, and to its owner who has used it."""
    portal = portal_of(request)
    found = await _table(portal, request.path_params["name"])
    uses, findings = [], []
    if found.owner == portal.name:
        findings = [one for handle in found.handles for one in portal.findings.get(handle, ())]
        await read_logs(request)
        first = portal.cluster.nodes[0].name
        uses = [
            one
            for one in portal.book.entries(first)
            if one.event == "runs" and one.concerns("", frozenset({found.name}))
        ]
    return page(
        request,
        "table.html",
        table=found,
        schema=schema_of(found, portal.name),
        findings=findings,
        listed=Listed.of(request, uses),
        book=portal.book,
        live=live(request, "/tables", found.name),
    )


async def drop(request: Request) -> Response:
    """Have the nodes forget a table, if its name was typed."""
    portal, said = portal_of(request), await form_of(request)
    name = request.path_params["name"]
    if said.text("name") != name:
        raise ConsentError(
            f"nothing was removed: type the name of the table, {name}, to have it removed for good"
        )
    await (await portal.lake()).drop(name)
    return see(request, "/tables")


async def _table(portal: Portal, name: str) -> Kept:
    found = await (await portal.lake()).desk.find(TABLE, name)
    if found is None:
        raise SchemaError(f"there is no table {name!r:.80} that all nodes have")
    return found


# -- uploads -------------------------------------------------------------------------------------------------


async def choose_file(request: Request) -> Response:
    """Where a file is chosen, or dropped."""
    return page(request, "upload.html", kinds=KINDS)


async def take_file(request: Request) -> Response:
    """Take a file in, to be looked at."""
    portal, said = portal_of(request), await form_of(request)
    file = said.form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        raise SchemaError("choose a file first")
    draft = await trio.to_thread.run_sync(portal.drafts.add, file.file, file.filename)
    return see(request, f"/upload/{draft.number}")


async def draft_page(request: Request) -> Response:
    """A file that waits: its columns, and the rules to choose."""
    portal = portal_of(request)
    draft = portal.drafts.find(request.path_params["number"])
    members = [one.name for one in portal.cluster.members if one.name != portal.name]
    return page(
        request,
        "draft.html",
        draft=draft,
        members=members,
        groups=GROUP_SENTENCES,
        kinds=get_args(Declared),
        least=LEAST,
    )


async def look(request: Request) -> Response:
    """What the schema will tell, and the rules in the nodes' words; a part of the page."""
    portal, said = portal_of(request), await form_of(request)
    draft = portal.drafts.find(request.path_params["number"])
    draft.asked = turn = draft.asked + 1
    try:
        async with portal.drafts.reading:
            if draft.asked != turn:
                raise SchemaError("something else was chosen since, and is looked at")
            found, allow = await _chosen(portal, portal.drafts.find(draft.number), said)
    except TercetError as error:
        return page(
            request, "look.html", problem=str(error), schema=None, findings=(), rules="", replaces=None
        )
    schema = found.schema
    try:
        there = await (await portal.lake()).desk.find(TABLE, schema.name)
    except StorageError:
        there = None  # half of an earlier upload, which this one replaces
    return page(
        request,
        "look.html",
        problem="",
        schema=schema,
        findings=found.findings,
        rules=str(allow.rules(schema)),
        replaces=there,
    )


async def put_in(request: Request) -> Response:
    """Upload the file as it was looked at."""
    portal, said = portal_of(request), await form_of(request)
    portal.drafts.find(request.path_params["number"])
    lake = await portal.lake()
    async with portal.drafts.reading:
        draft = portal.drafts.find(request.path_params["number"])
        found, allow = await _chosen(portal, draft, said)
        kept = await lake.upload(draft.path, **_options(portal, draft, said), allow=allow)
        portal.drafts.drop(draft.number)
        portal.findings[kept.keys.handle] = found.findings
    return see(request, "/tables", found.schema.name)


async def discard(request: Request) -> Response:
    """Remove a file that waits."""
    portal = portal_of(request)
    await form_of(request)
    portal.drafts.drop(request.path_params["number"])
    return see(request, "/upload")


def _options(portal: Portal, draft: Draft, said: Said) -> dict[str, Any]:
    """Options of the upload, as chosen. Raises SchemaError for what makes no table."""
    keys = said.texts("key")
    if not keys:
        raise SchemaError("choose the column by which rows are linked: a number or a name that is there once")
    least, used = said.whole("min_count", "the least number of rows"), set(said.texts("use"))
    return {
        "name": said.text("name"),
        "key": keys,
        "owner": portal.name,
        "columns": [one.name for one in draft.columns if one.name in used and one.name not in keys],
        "types": {
            one.name: cast("Declared", kind)
            for place, one in enumerate(draft.columns)
            if (kind := said.text(f"kind{place}")) in get_args(Declared)
        },
        "missing": "indicator" if said.ticked("missing") else "refuse",
        "min_count": 1 if least is None else least,
    }


async def _chosen(portal: Portal, draft: Draft, said: Said) -> tuple[Found, Allow]:
    """What the file becomes, and the rules that a form chooses. Raises SchemaError or ConsentError."""
    options, allow = _options(portal, draft, said), _allow(said, portal.name)
    least = allow.least(options["min_count"])
    found = await trio.to_thread.run_sync(lambda: draft.look(**options, label_count=least))
    allow.rules(found.schema)
    return found, allow


def _allow(said: Said, owner: str) -> Allow:
    """The rules that a form chooses. Raises ConsentError for rules that mean nothing.

    Rules without names mean all, so a form that says "only these" and names none never comes to be one.
    """
    signed = said.text("plans")
    until = said.text("until")
    try:
        last = dt.date.fromisoformat(until) if until else None
    except ValueError as error:
        raise ConsentError(f"{until!r:.40} is no date; write it as in 2027-01-31") from error
    return Allow(
        _only(said, "readers", "reader", "a member who may use it"),
        "any" if signed == "any" else "approved",
        said.ticked("rows"),
        said.number("days", "the number of days"),
        computations=tuple(one for one in GROUPS if one in said.texts("group")) if signed == "some" else (),
        columns=_only(said, "columns", "allow_column", "a column that may be used"),
        receivers=_only(said, "receivers", "receiver", owner=owner),
        uses=said.whole("uses", "the number of computations"),
        until=last,
    )


def _only(said: Said, choice: str, box: str, what: str = "", owner: str = "") -> tuple[str, ...]:
    """What is ticked, or nothing where a form says "all". Where that is nobody else, the `owner` is left.

    Raises ConsentError for a form that says neither, and for "only these" of which `what` none is ticked.
    """
    if said.text(choice) == "all":
        return ()
    if said.text(choice) != "some":
        raise ConsentError(f"the form does not say which {choice} are allowed; open the page again")
    found = tuple(said.texts(box)) or ((owner,) if owner else ())
    if not found:
        raise ConsentError(f"only these {choice} are allowed, and none is ticked: tick {what}, or allow all")
    return found


# -- what has come, and what has been ------------------------------------------------------------------------


async def results(request: Request) -> Response:
    """What others' computations have revealed to this member."""
    portal = portal_of(request)
    found = await (await portal.lake()).desk.results()
    runs: dict[bytes, list[Received]] = {}
    for one in found:
        runs.setdefault(one.session, []).append(one)
    return page(request, "results.html", runs=runs, most=MOST_SHOWN)


async def result_file(request: Request) -> Response:
    """The numbers of a run, as CSV: a line each."""
    portal, session = portal_of(request), request.path_params["session"]
    found = [one for one in await (await portal.lake()).desk.results() if one.session.hex() == session]
    if not found:
        raise ConsentError("there is no such result at the nodes any more")
    rows: list[Sequence[object]] = []
    for one in found:
        for place, value in enumerate(one.values.reshape(-1).tolist()):
            rows.append((one.sender, one.plan, one.name, place, value))
    return download(
        table_of(("from", "plan", "name", "place", "value"), rows), f"{session[:8]}.csv", "text/csv"
    )


async def remove_result(request: Request) -> Response:
    """Have the nodes keep a result no longer."""
    portal, _ = portal_of(request), await form_of(request)
    try:
        session = bytes.fromhex(request.path_params["session"])
    except ValueError as error:
        raise ConsentError("there is no such result") from error
    await (await portal.lake()).desk.take_away(session)
    return see(request, "/results")


async def history(request: Request) -> Response:
    """What the audit log has about this member."""
    portal = portal_of(request)
    await read_logs(request)
    kept = await (await portal.lake()).tables()
    mine = frozenset(one.name for one in kept if one.owner == portal.name)
    first = portal.cluster.nodes[0].name
    found = [one for one in portal.book.entries(first) if one.concerns(portal.name, mine)]
    return page(
        request,
        "history.html",
        listed=Listed.of(request, found),
        book=portal.book,
        live=live(request, "/history"),
    )
