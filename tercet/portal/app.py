"""The portal as an application: its routes, what errors look like, and Hypercorn at 127.0.0.1."""

from __future__ import annotations

import errno
import logging
import math
import socket
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import trio
from h11 import LocalProtocolError
from hypercorn.config import Config
from hypercorn.trio import serve as serve_http
from hypercorn.typing import ASGIFramework
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tercet.actors.line import plain_errors
from tercet.errors import ConfigError, PeerLost, TercetError, TransportError
from tercet.portal import analyst_pages, auditor_pages, consent_pages, owner_pages
from tercet.portal.guard import App, Guard, Sessions, TooLarge, set_cookie, too_large, way_home
from tercet.portal.mishaps import unforeseen
from tercet.portal.rendering import ForgedError, Handler, form_of, once_read, page, portal_of, refusal
from tercet.portal.state import Portal

logger = logging.getLogger(__name__)

HERE = "127.0.0.1"
FULL = (errno.ENOSPC, errno.EDQUOT)
SWEEP_S = 30.0
"""How often it is looked whether the session's time is up, and whether the lake's file is the same."""


async def enter(request: Request) -> Response:
    """Exchange the token of a link for a session."""
    portal = portal_of(request)
    session = portal.sessions.enter(request.query_params.get("token", ""))
    if session is None:
        why = "It was used before, or is not the latest. The terminal shows the one that opens the portal."
        return _sentence(request, 403, "This link opens nothing", why)
    answer = RedirectResponse(portal.at("/"), 303)
    answer.headers["Set-Cookie"] = set_cookie(portal.sessions, session)
    return answer


async def leave(request: Request) -> Response:
    """End the session."""
    portal, _ = portal_of(request), await form_of(request)
    portal.drafts.clear()
    portal.sessions.end()
    why = "Nobody can open it any more in this browser. The terminal shows a new link."
    return _sentence(request, 200, "The portal is closed", why)


def _routes() -> list[Route | Mount]:
    """All pages: what is read, and what forms do."""

    def reads(path: str, handler: Handler) -> Route:
        return Route(path, handler, methods=["GET"])

    def does(path: str, handler: Handler) -> Route:
        async def and_close(request: Request) -> Response:
            try:
                return await handler(request)
            finally:
                await request.close()  # files of its form

        return Route(path, and_close, methods=["POST"])

    def shows_logs(path: str, handler: Handler) -> list[Route | Mount]:
        return [reads(f"{path}/live", once_read(handler)), reads(path, handler)]

    owner, consent, analyst, auditor = owner_pages, consent_pages, analyst_pages, auditor_pages
    return [
        Mount("/static", StaticFiles(packages=[("tercet.portal", "static")])),
        reads("/enter", enter),
        does("/leave", leave),
        reads("/", owner.overview),
        reads("/tables", owner.tables),
        *shows_logs("/tables/{name}", owner.table),
        does("/tables/{name}/drop", owner.drop),
        reads("/upload", owner.choose_file),
        does("/upload", owner.take_file),
        reads("/upload/{number}", owner.draft_page),
        does("/upload/{number}", owner.put_in),
        does("/upload/{number}/look", owner.look),
        does("/upload/{number}/discard", owner.discard),
        reads("/results", owner.results),
        reads("/results/{session}.csv", owner.result_file),
        does("/results/{session}/remove", owner.remove_result),
        *shows_logs("/history", owner.history),
        reads("/studies", consent.studies),
        does("/studies", consent.propose_file),
        reads("/studies/{number}", consent.study),
        reads("/studies/{number}/drawing.svg", consent.study_drawing),
        reads("/studies/{number}/study.json", consent.study_file),
        does("/studies/{number}/approve", consent.approve_study),
        does("/studies/{number}/refuse", consent.refuse_study),
        does("/studies/{number}/run", analyst.begin),
        reads("/plans/{number}", consent.plan),
        reads("/plans/{number}/drawing.svg", consent.plan_drawing),
        does("/plans/{number}/approve", consent.approve_plan),
        does("/plans/{number}/refuse", consent.refuse_plan),
        reads("/guided", analyst.choose),
        does("/guided/columns", analyst.columns),
        does("/guided/look", analyst.look),
        does("/guided/export/{kind}", analyst.export),
        does("/guided", analyst.propose),
        reads("/runs", analyst.runs),
        reads("/runs/{number}", analyst.run),
        reads("/runs/{number}/live", analyst.run_live),
        does("/runs/{number}/cancel", analyst.cancel),
        reads("/runs/{number}/{chart}.{kind}", analyst.chart),
        reads("/runs/{number}/results/{kind}", analyst.figures_file),
        reads("/jobs/{session}/live", analyst.job_live),
        does("/jobs/{session}/cancel", analyst.cancel_job),
        *shows_logs("/audit", auditor.audit),
        does("/audit/verify", auditor.verify),
        *shows_logs("/heads", auditor.heads),
        reads("/nodes", auditor.nodes),
        reads("/nodes/live", auditor.nodes_live),
        reads("/nodes/{name}.svg", auditor.node_chart),
    ]


def application(portal: Portal, host: str) -> Guard:
    """What answers the requests of a browser that asks for `host`, as in 127.0.0.1:7400."""

    async def refused(request: Request, error: Exception) -> Response:
        """A sentence of Tercet's, as a page."""
        lost = isinstance(error, PeerLost | TransportError | ConfigError)
        heading = "The lake cannot be reached" if lost else "That was not done"
        return _sentence(request, 502 if lost else 409, heading, str(error))

    async def missing(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        return _sentence(
            request, status, "There is no such page", "It may have been one that is over by now."
        )

    async def forged(request: Request, _: Exception) -> Response:
        why = "The form is not of this session. Open the page again, and send it once more."
        return _sentence(request, 403, "From another session", why)

    async def large(request: Request, error: Exception) -> Response:
        answer = _sentence(request, *too_large(cast("TooLarge", error).most))
        answer.headers["Connection"] = "close"
        return answer

    async def full(request: Request, error: Exception) -> Response:
        """Of errors of the system those that its owner can do something about."""
        if cast("OSError", error).errno not in FULL:
            raise error
        why = (
            "This machine has no room left where the portal writes. Make room in the folder of temporary "
            "files (TMPDIR), and beside your key."
        )
        return _sentence(request, 507, "The disk is full", why)

    async def failed(request: Request, error: Exception) -> Response:
        logger.error("%s failed in an unforeseen way", request.url.path, exc_info=error)
        why = "The terminal shows what went wrong. It is a defect of the portal; please report it."
        return _sentence(request, 500, "That went wrong", why)

    handlers: dict[type[Exception] | int, Callable[[Request, Exception], Awaitable[Response]]] = {
        TercetError: refused,
        HTTPException: missing,
        ForgedError: forged,
        TooLarge: large,
        OSError: full,
        Exception: failed,
    }
    app = Starlette(
        routes=[Mount(f"/{portal.sessions.place}", routes=_routes())],
        exception_handlers=cast("dict[Any, Any]", handlers),
    )
    app.state.portal = portal
    return Guard(cast("App", app), portal.sessions, host, refusal)


def _sentence(request: Request, status: int, heading: str, why: str) -> Response:
    """A page that says no; of a part of a page, the sentence alone."""
    if request.headers.get("hx-request") == "true":
        return page(request, "problem.html", status, why=why)
    portal = portal_of(request)
    known = request.scope.get("session") is not None
    home = portal.at("/") if known else way_home(portal.sessions, request.scope["path"])
    text, kind = refusal(status, heading, why, home)
    return Response(text, status, media_type=kind)


@attrs.frozen
class Serving:
    """A portal that is served: where, and what for."""

    portal: Portal
    host: str

    @property
    def link(self) -> str:
        """The link that opens it, once."""
        return f"http://{self.host}{self.portal.sessions.link}"


async def serve(
    cluster: Path,
    identity: Path,
    *,
    port: int = 0,
    timeout_s: float = 6.0,
    sessions: Sessions | None = None,
    on_link: Callable[[str], None] | None = None,
    task_status: trio.TaskStatus[Serving] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a member's portal at 127.0.0.1 until it is cancelled; `port` 0 for any that is free.

    A node that is silent for `timeout_s` is given up. `on_link` is told the link that opens the portal, at
    first and whenever a session has ended. Raises ConfigError for files that do not fit together, and for a
    port that is taken.
    """
    sessions, closing = sessions or Sessions(), False
    try:
        with tempfile.TemporaryDirectory(prefix="tercet-portal-") as scratch:
            async with plain_errors(), trio.open_nursery() as nursery:
                portal = Portal.make(
                    cluster,
                    identity,
                    sessions=sessions,
                    scratch=Path(scratch),
                    timeout_s=timeout_s,
                    nursery=nursery,
                )
                listening = _listen(port)
                host = f"{HERE}:{listening.getsockname()[1]}"
                config = Config()
                config.bind = [f"fd://{listening.detach()}"]
                config.accesslog = config.errorlog = None
                config.include_server_header = False
                config.graceful_timeout = 1.0
                serving = Serving(portal, host)
                if on_link is not None:
                    tell = on_link
                    sessions.on_link = lambda: tell(serving.link)
                    sessions.on_link()
                nursery.start_soon(_sweep, portal)
                app = cast("ASGIFramework", application(portal, host))
                await nursery.start(
                    partial(serve_http, app, config, shutdown_trigger=trio.sleep_forever, mode="asgi")
                )
                task_status.started(serving)
                try:
                    await trio.sleep_forever()
                finally:
                    closing = not nursery.cancel_scope.cancel_called
                    portal.drafts.clear()  # also where a thread that reads one goes on for long
    except* LocalProtocolError as group:
        # Hypercorn answers requests that end with the portal once more, also in the middle of their answers.
        if not (closing or trio.current_effective_deadline() == -math.inf):
            raise
        logger.debug("requests were cut off: %s", group)


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HERE, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"port {port} of {HERE} cannot be listened at ({error.strerror}); take another"
        ) from error
    return listening


async def _sweep(portal: Portal) -> None:
    """End sessions whose time is up, and remove what they have left; see whether the lake's file changes."""
    while True:
        await trio.sleep(SWEEP_S)
        portal.sessions.sweep()
        if portal.sessions.link:
            portal.drafts.clear()
        try:
            await trio.to_thread.run_sync(portal.look_at_file)
        except Exception as error:  # noqa: BLE001 - a portal goes on
            portal.changed = unforeseen("a look at the lake's file", error)
