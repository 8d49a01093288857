"""Pages of consent: studies and plans that wait, each as one page to be read, and the member's word on it.

What a page shows of a study is what all nodes say of it. Its form carries the digests of the study and of
these sentences, and nothing is signed unless both are still the same, so nobody signs what she has not read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import trio
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import Response

from tercet.actors.estimate import explain
from tercet.client.study_api import KnownStudy, ShownStudy
from tercet.client.wording import describe_plan, stands
from tercet.errors import ConsentError, TercetError
from tercet.members.study_files import MOST_BYTES
from tercet.plans.drawing import to_svg
from tercet.portal.guard import PICTURE_POLICY
from tercet.portal.owner_pages import SEE_STUDIES
from tercet.portal.rendering import Listed, download, form_of, page, portal_of, see
from tercet.portal.study_drawing import draw_study

REQUEST = re.compile(r" *\d+\. ")
"""How lines of a study's page begin that are requests."""
COUNT = re.compile(r"\d+ requests?:")
"""The line before those."""
STUDIES = 20
"""Studies on a page."""
LEAST_DIGITS = 4
"""Of a study's number, so many are looked for: fewer are in words and years."""
MOST_DRAWN = 400
"""Nodes of a plan that is drawn."""


async def studies(request: Request) -> Response:
    """All studies, those that wait for this member first; and plans that wait."""
    portal = portal_of(request)
    words = request.query_params.get("q", "").lower().split()
    lake = await portal.lake()
    found = await lake.studies() if portal.has(*SEE_STUDIES) else []
    found = [one for one in found if all(_says(one, word) for word in words)]
    found.sort(key=lambda one: (portal.name not in one.missing or bool(one.refusal), -one.proposed))
    return page(
        request,
        "studies.html",
        listed=Listed.of(request, found, STUDIES),
        words=" ".join(words),
        plans=await lake.plans(),
        stands=stands,
    )


def _says(known: KnownStudy, word: str) -> bool:
    """Whether a word is in what a study is for, in its analyst's name, or begins its number."""
    numbered = len(word) >= LEAST_DIGITS and known.digest.hex().startswith(word)
    return numbered or word in f"{known.purpose} {known.analyst}".lower()


async def study(request: Request) -> Response:
    """One study, as its owners read it."""
    portal = portal_of(request)
    shown = await (await portal.lake()).show_study(request.path_params["number"])
    number = shown.known.number
    guided, why_not = None, ""
    try:
        guided = portal.work.guided(number)
    except TercetError as error:
        why_not = str(error)
    runs = [one for one in portal.work.runs.values() if one.study == number]
    heads = [line for line in shown.page[3:] if not REQUEST.match(line) and not COUNT.fullmatch(line)]
    return page(
        request,
        "study.html",
        study=shown.study,
        known=shown.known,
        notes=[line for line in heads if line.startswith("NOTE")],
        heads=[line for line in heads if not line.startswith("NOTE")],
        requests=[line.strip() for line in shown.page if REQUEST.match(line)],
        stands=stands(shown.known),
        read=_digest(shown.page),
        guided=guided,
        why_not=why_not,
        runs=runs[::-1],
        recorded=portal.work.has_study(number),
    )


def _digest(lines: Sequence[str]) -> str:
    """What names the sentences that were read."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


async def study_drawing(request: Request) -> Response:
    """What leads to what in a study, as SVG."""
    shown = await (await portal_of(request).lake()).show_study(request.path_params["number"])
    return picture(draw_study(shown.study))


def picture(svg: str | bytes) -> Response:
    """A drawing, which loads and runs nothing."""
    headers = {"Content-Security-Policy": PICTURE_POLICY}
    return Response(svg, media_type="image/svg+xml", headers=headers)


async def approve_study(request: Request) -> Response:
    """Sign a study, as it was read."""
    portal, said = portal_of(request), await form_of(request)
    lake = await portal.lake()
    shown = await lake.show_study(said.text("digest"))
    if not said.ticked("have_read"):
        raise ConsentError("nothing was signed: say that you have read the page")
    _require_read(shown, said.text("digest"), said.text("read"))
    await lake.approve_study(
        shown,
        uses=said.whole("uses", "the number of runs"),
        days=said.number("days", "the number of days"),
    )
    return see(request, "/studies", shown.known.number)


def _require_read(shown: ShownStudy, digest: str, read: str) -> None:
    if shown.known.digest.hex() != digest or _digest(shown.page) != read:
        raise ConsentError(
            f"nothing was signed: the nodes say other things of study {shown.known.number} than on the page "
            "that you have read, as when a table was replaced meanwhile; go back and read it again"
        )


async def refuse_study(request: Request) -> Response:
    """End a study, with a reason."""
    portal, said = portal_of(request), await form_of(request)
    known = await (await portal.lake()).refuse_study(said.text("digest"), said.text("why"))
    return see(request, "/studies", known.number)


async def study_file(request: Request) -> Response:
    """The file of a study that was asked for here."""
    number = request.path_params["number"]
    text = portal_of(request).work.study_text(number)
    if text is None:
        raise ConsentError(f"the file of study {number!r:.20} is not here")
    return download(text, f"{number}.study.json", "application/json")


async def propose_file(request: Request) -> Response:
    """Ask owners for a study that a notebook has recorded."""
    portal, said = portal_of(request), await form_of(request)
    file = said.form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        raise ConsentError("choose the file that lake.record has written")
    known = await portal.work.propose_file(await file.read(MOST_BYTES + 1))
    return see(request, "/studies", known.number)


# -- plans ---------------------------------------------------------------------------------------------------


async def plan(request: Request) -> Response:
    """One plan that waits, as its owners read it."""
    lake = await portal_of(request).lake()
    waiting, found = await lake.show(request.path_params["number"])
    lines = describe_plan(waiting, found, await lake.entries())
    cost = await trio.to_thread.run_sync(
        lambda: str(explain(found, lake.cluster.protocol, lake.cluster.parties, apart=True))
    )
    return page(
        request,
        "plan.html",
        waiting=waiting,
        name=found.name,
        lines=lines[:-1],
        digest=found.digest().hex(),
        cost=cost,
        drawn=len(found.nodes) <= MOST_DRAWN,
    )


async def plan_drawing(request: Request) -> Response:
    """A waiting plan, drawn."""
    portal = portal_of(request)
    _, found = await (await portal.lake()).show(request.path_params["number"])
    if len(found.nodes) > MOST_DRAWN:
        raise ConsentError(f"the plan has {len(found.nodes)} nodes, too many to be drawn in a page")
    return picture(await trio.to_thread.run_sync(to_svg, found, portal.cluster.protocol))


async def approve_plan(request: Request) -> Response:
    """Sign a waiting plan, as it was read."""
    portal, said = portal_of(request), await form_of(request)
    lake = await portal.lake()
    waiting, found = await lake.show(said.text("session"))
    if not said.ticked("have_read"):
        raise ConsentError("nothing was signed: say that you have read the page")
    if found.digest().hex() != said.text("digest"):
        raise ConsentError(f"plan {waiting.number} is another one than you have read; look at it again")
    await lake.approve(waiting)
    return see(request, "/studies")


async def refuse_plan(request: Request) -> Response:
    """End a waiting plan, with a reason."""
    portal, said = portal_of(request), await form_of(request)
    await (await portal.lake()).refuse(said.text("session"), said.text("why"))
    return see(request, "/studies")
