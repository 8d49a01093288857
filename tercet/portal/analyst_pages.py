"""Pages of who analyses: a study put together by choosing, with its Python beside it; runs and results."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import Response

from tercet.actors.progress import Progress
from tercet.client.driver import schema_of
from tercet.client.wording import stands
from tercet.errors import ConsentError, PlanError, ProtocolError, TercetError
from tercet.ml.metrics.evaluation import METRICS
from tercet.ml.schema import TableSchema
from tercet.portal.charts import Format, draw
from tercet.portal.consent_pages import picture
from tercet.portal.guided import USUAL_METRICS, Guided, Terms, rows_for
from tercet.portal.outcomes import Outcome
from tercet.portal.rendering import Said, download, form_of, in_place, page, portal_of, see, table_of
from tercet.portal.state import Portal
from tercet.portal.study_work import Run


async def _schemas(portal: Portal) -> dict[str, TableSchema]:
    """Public schemas of the tables that this member may use, by name."""
    roles = frozenset(portal.roles)
    return {
        one.name: schema_of(one, portal.name)
        for one in await (await portal.lake()).tables()
        if one.rules.lets(one.owner, portal.name, roles)
    }


async def choose(request: Request) -> Response:
    """Where a study is put together."""
    schemas = await _schemas(portal_of(request))
    chosen = [one for one in request.query_params.getlist("table") if one in schemas]
    return page(request, "guided.html", schemas=schemas, chosen=chosen, **_unchosen())


def _unchosen() -> dict[str, Any]:
    """What stands on the page before anything is chosen."""
    return {"metrics": METRICS, "usual": USUAL_METRICS, "terms": Terms(purpose="")}


async def columns(request: Request) -> Response:
    """Columns of the tables that are chosen, to be outcome and features; a part of the page."""
    portal, said = portal_of(request), await form_of(request)
    schemas = await _schemas(portal)
    tables = [schemas[name] for name in said.texts("table") if name in schemas]
    return page(
        request,
        "columns.html",
        tables=tables,
        target=said.text("target"),
        features=said.texts("feature"),
    )


async def look(request: Request) -> Response:
    """The Python of what is chosen, or what is missing yet; a part of the page."""
    portal, said = portal_of(request), await form_of(request)
    try:
        guided, terms = await _chosen(portal, said)
    except TercetError as error:
        return page(request, "python.html", problem=str(error), text="")
    return page(request, "python.html", problem="", text=guided.python(terms, *_files(portal)))


async def _chosen(portal: Portal, said: Said) -> tuple[Guided, Terms]:
    """What a form chooses. Raises PlanError for what makes no study."""
    schemas = await _schemas(portal)
    tables = said.texts("table")
    share = said.number("test_size", "the share of rows to test on")
    strength = said.number("C", "C")
    guided = Guided.of(
        schemas,
        tables,
        target=said.text("target"),
        features=tuple(said.texts("feature")),
        test_size=0.25 if share is None else share,
        C=None if said.text("penalty") == "none" else 1.0 if strength is None else strength,
        metrics=tuple(one for one in METRICS if one in said.texts("metric")),
        roc=said.ticked("roc"),
        calibration=said.ticked("calibration"),
    )
    uses, days = said.whole("uses", "the number of runs"), said.number("days", "the number of days")
    terms = Terms(
        purpose=said.text("purpose") or "(say what the study is for)",
        uses=Terms(purpose="").uses if uses is None else uses,
        days=Terms(purpose="").days if days is None else days,
        rows=rows_for([schemas[name] for name in tables], guided.test_size),
    )
    return guided, terms


def _files(portal: Portal) -> tuple[str, str]:
    return portal.cluster_path.name, portal.identity_path.name


async def export(request: Request) -> Response:
    """What is chosen, as a script or a notebook."""
    portal, said = portal_of(request), await form_of(request)
    guided, terms = await _chosen(portal, said)
    if request.path_params["kind"] == "notebook":
        return download(guided.notebook(terms, *_files(portal)), "study.ipynb", "application/x-ipynb+json")
    return download(guided.python(terms, *_files(portal)), "study.py", "text/x-python")


async def propose(request: Request) -> Response:
    """Rehearse what is chosen on made-up rows, and ask owners for it."""
    portal, said = portal_of(request), await form_of(request)
    guided, terms = await _chosen(portal, said)
    if not said.text("purpose"):
        raise PlanError("say what the study is for: owners read it before they sign")
    known = await portal.work.propose(guided, terms)
    return see(request, "/studies", known.number)


# -- runs ----------------------------------------------------------------------------------------------------


async def begin(request: Request) -> Response:
    """Run an approved study."""
    portal, _ = portal_of(request), await form_of(request)
    known = await (await portal.lake()).desk.studies.find(request.path_params["number"])
    if known.missing or known.refusal:
        raise ConsentError(f"study {known.number} cannot be run: {stands(known)}")
    return see(request, "/runs", portal.work.begin(known).number)


async def runs(request: Request) -> Response:
    """Runs of this portal and of earlier ones; jobs that were submitted elsewhere."""
    portal = portal_of(request)
    await trio.to_thread.run_sync(portal.work.read_earlier)
    found = sorted(portal.work.runs.values(), key=lambda one: -one.begun)
    lake = await portal.lake()
    jobs = await lake.jobs()
    return page(request, "runs.html", runs=found, jobs=jobs)


async def run(request: Request) -> Response:
    """One run: how far it is, or what came out."""
    portal = portal_of(request)
    found = _run(portal, request)
    return page(request, "run.html", run=found, **_figures(found.outcome))


async def run_live(request: Request) -> Response:
    """How far a run is; a part of the page, which is asked for again and again, and at its end the page."""
    found = _run(portal_of(request), request)
    if found.ended is not None:
        return in_place(page(request, "run.html", run=found, **_figures(found.outcome)))
    return page(request, "progress.html", run=found)


def _run(portal: Portal, request: Request) -> Run:
    return portal.work.run(request.path_params["number"])


async def cancel(request: Request) -> Response:
    """End a run."""
    portal, _ = portal_of(request), await form_of(request)
    found = _run(portal, request)
    found.scope.cancel()
    return see(request, "/runs", found.number)


async def job_live(request: Request) -> Response:
    """How far a job is that was submitted elsewhere; a part of the page."""
    portal = portal_of(request)
    try:
        session = bytes.fromhex(request.path_params["session"])
        told = await (await portal.lake()).cluster.client.ask("progress", [session])
        parts = [Progress.read(one) for one in told]
    except (ValueError, ProtocolError) as error:
        raise ConsentError("there is no such job") from error
    return page(request, "job.html", parts=parts)


async def cancel_job(request: Request) -> Response:
    """End a job, and have the nodes forget it."""
    portal, _ = portal_of(request), await form_of(request)
    wanted = request.path_params["session"]
    for one in await (await portal.lake()).jobs():
        if one.session.hex() == wanted:
            await one.cancel()
            return see(request, "/runs")
    raise ConsentError("there is no such job any more")


# -- what came out -------------------------------------------------------------------------------------------


def _figures(outcome: Outcome | None) -> dict[str, Any]:
    """Figures of an outcome for its page: the summary as rows of text, metrics with reasons."""
    if outcome is None:
        return {"facts": [], "heads": [], "rows": [], "notes": [], "metrics": [], "outcome": None}
    heads, rows = outcome.summary.cells()
    metrics = () if outcome.metrics is None else outcome.metrics.values.items()
    reasons: Mapping[str, str] = {} if outcome.metrics is None else outcome.metrics.reasons
    return {
        "facts": outcome.summary.facts(),
        "heads": heads,
        "rows": rows,
        "notes": outcome.summary.notes(),
        "metrics": [(name, _shown(value), reasons.get(name, "")) for name, value in metrics],
        "outcome": outcome,
    }


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "not defined" if math.isnan(value) else f"{value:.4f}"
    return str(value.tolist()) if hasattr(value, "tolist") else str(value)


async def chart(request: Request) -> Response:
    """A picture of an outcome; a PNG of it is to be kept."""
    outcome = _outcome(request)
    name, kind = request.path_params["chart"], request.path_params["kind"]
    if kind not in ("svg", "png"):
        raise ConsentError(f"pictures are svg or png, not {kind!r:.20}")
    form: Format = "svg" if kind == "svg" else "png"
    dark = request.query_params.get("theme") == "dark"
    drawn = await trio.to_thread.run_sync(lambda: draw(outcome, name, form, dark=dark))
    return picture(drawn) if form == "svg" else download(drawn, f"{name}.png", "image/png")


def _outcome(request: Request) -> Outcome:
    found = _run(portal_of(request), request)
    if found.outcome is None:
        raise ConsentError(f"run {found.number} is {found.state}: it has given nothing")
    return found.outcome


async def figures_file(request: Request) -> Response:
    """All figures of an outcome: a table as CSV or LaTeX, or everything as JSON."""
    outcome, kind = _outcome(request), request.path_params["kind"]
    if kind == "tex":
        return download(outcome.summary.to_latex(), "summary.tex", "application/x-tex")
    if kind == "json":
        return download(outcome.to_text(), "results.json", "application/json")
    if kind == "csv":
        frame = outcome.summary.to_frame()
        rows = [(name, *row) for name, row in zip(frame.index, frame.to_numpy().tolist(), strict=True)]
        return download(table_of(("coefficient", *frame.columns), rows), "summary.csv", "text/csv")
    raise ConsentError(f"there is no file of the kind {kind!r:.20}")
