"""Pages of auditors and operators: logs of all nodes, verified, searched, compared; how nodes are."""

from __future__ import annotations

import time
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from tercet.errors import ConsentError
from tercet.portal.consent_pages import picture
from tercet.portal.rendering import Listed, form_of, live, page, portal_of, read_logs, see
from tercet.portal.study_drawing import draw_samples

MOST_DIFFERENCES = 50
CHARTS: Mapping[str, tuple[str, float]] = {
    "memory": ("memory, MB", 1e6),
    "runs": ("plans under way", 1.0),
    "free": ("free disk, GB", 1e9),
}


async def audit(request: Request) -> Response:
    """Lines of the logs, searched and page by page, and where each log stands."""
    await read_logs(request)
    portal, asked = portal_of(request), request.query_params
    book = portal.book
    words, node, event = asked.get("q", ""), asked.get("node", ""), asked.get("event", "")
    return page(
        request,
        "audit.html",
        book=book,
        nodes=[one.name for one in portal.cluster.nodes],
        live=live(request, "/audit"),
        listed=Listed.of(request, book.found(words, node, event)),
        words=words,
        node=node,
        event=event,
    )


async def verify(request: Request) -> Response:
    """Verify all lines again."""
    portal, _ = portal_of(request), await form_of(request)
    portal.book.verify()
    return see(request, "/audit")


async def heads(request: Request) -> Response:
    """Heads of all nodes: what they say now, what was verified; and what they do not have alike."""
    portal = portal_of(request)
    await read_logs(request)
    looked = await portal.nodes.look()
    told = {one.name: (one.told or {}).get("audit") for one in looked}
    differences = portal.book.differences()
    return page(
        request,
        "heads.html",
        book=portal.book,
        live=live(request, "/heads"),
        told=told,
        differences=differences[:MOST_DIFFERENCES],
        more=max(0, len(differences) - MOST_DIFFERENCES),
    )


async def nodes(request: Request) -> Response:
    """How the nodes are."""
    portal = portal_of(request)
    looked = await portal.nodes.look()
    return page(request, "nodes.html", looked=looked, watch=portal.nodes, charts=CHARTS, now=time.time())


async def nodes_live(request: Request) -> Response:
    """The same as a part of the page, which comes again and again."""
    portal = portal_of(request)
    looked = await portal.nodes.look()
    return page(request, "nodes_now.html", looked=looked, watch=portal.nodes, charts=CHARTS, now=time.time())


async def node_chart(request: Request) -> Response:
    """A figure of all nodes over the time that somebody has looked, as SVG."""
    name = request.path_params["name"]
    if name not in CHARTS:
        raise ConsentError(f"there is no plot of {name!r:.20}")
    title, unit = CHARTS[name]
    samples = {node: list(some) for node, some in portal_of(request).nodes.samples.items()}
    return picture(draw_samples(samples, name, title, unit))
