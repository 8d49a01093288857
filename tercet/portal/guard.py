"""What every request to the portal has to pass before a page is made of it, and what every answer carries.

The portal acts with a member's key, and whatever else runs in the browser, or on this machine, would like to
have it act for them. So it listens at 127.0.0.1 alone, answers to that name alone (a page whose name was
rebound to 127.0.0.1 comes with its own), takes requests from its own pages alone (`Origin`, `Sec-Fetch-
Site`), and knows its member by a cookie that it gave in exchange for a token that works once. Cookies know no
ports: so that no other server on this machine is sent this one, it is for a path that nobody can guess. What
changes something needs the session's CSRF token besides, which is checked where forms are read
(`rendering.form_of`).
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import attrs

from tercet.members.study_files import MOST_BYTES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

COOKIE = "tercet-portal"
IDLE_S, LONGEST_S = 30 * 60.0, 12 * 3600.0
"""A session ends when nothing was asked for so long, and after so long whatever is asked."""
MOST_FORM, MOST_UPLOAD = 1 << 20, 1 << 29
"""Bytes of a form, and of one with a table. Larger tables are uploaded by the command."""
MOST_STUDY = MOST_BYTES + (1 << 16)
"""Bytes of a form with the file of a study, of the largest that there is."""
LIVE = ("/live", ".svg")
"""How paths end which pages ask for by themselves, some again and again; that keeps no session open."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PICTURE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""For drawings that are opened by themselves: they have styles of their own, and load and run nothing."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""What every answer carries, unless it says otherwise itself."""


@attrs.define(eq=False)
class Session:
    """One browser that has shown a token: what its cookie says, and what its forms have to say besides."""

    begun: float
    seen: float
    cookie: str = attrs.field(factory=lambda: secrets.token_urlsafe(32), repr=False)
    csrf: str = attrs.field(factory=lambda: secrets.token_urlsafe(32), repr=False)


class Sessions:
    """The one-time token of the next link, and the session that the last one has opened.

    There is one at a time. When it has ended, there is a token again, and `on_link` is told.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.place = secrets.token_urlsafe(9)
        """The folder of all pages, for which the cookie is."""
        self.on_link: Callable[[], None] | None = None
        self._clock = clock
        self._open: Session | None = None
        self._token = secrets.token_urlsafe(32)

    @property
    def link(self) -> str:
        """The path that opens a session, once; nothing while one is open."""
        return f"/{self.place}/enter?token={self._token}" if self._token else ""

    def enter(self, token: str) -> Session | None:
        """Exchange a token for a session."""
        if not self._token or not hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        now = self._clock()
        self._token, self._open = "", Session(now, now)
        return self._open

    def find(self, cookie: str, *, goes_on: bool = True) -> Session | None:
        """The session of a cookie; None if it has ended, or never was. It `goes_on` by being asked for."""
        self.sweep()
        found = self._open
        if found is None or not hmac.compare_digest(cookie.encode(), found.cookie.encode()):
            return None
        found.seen = self._clock() if goes_on else found.seen
        return found

    def sweep(self) -> None:
        """End a session whose time is up."""
        found, now = self._open, self._clock()
        if found is not None and (now - found.seen > IDLE_S or now - found.begun > LONGEST_S):
            self.end()

    def end(self) -> None:
        """End the session; there is a link for another one."""
        self._open, self._token = None, secrets.token_urlsafe(32)
        if self.on_link is not None:
            self.on_link()


class TooLarge(Exception):  # noqa: N818 - what the application answers by `too_large`
    """A request had more bytes than are taken."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most


Refuse = Callable[[int, str, str, str], tuple[bytes, str]]
"""Makes a page that says no: of a status, a heading, a sentence, and the way home; with its content type."""


@attrs.define(eq=False)
class Guard:
    """Passes requests on to an application, which finds the session in `scope["session"]`."""

    app: App
    sessions: Sessions
    host: str
    """Name and port by which the portal is asked."""
    refuse: Refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI has it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1").lower(): text.decode("latin-1") for name, text in scope["headers"]}
        wrong = self._foreign(scope, headers) or self._stranger(scope, headers)
        if wrong is not None:
            await self._answer(send, scope, *wrong)
            return
        files = {"upload": MOST_UPLOAD, "studies": MOST_STUDY}
        most = files.get(scope["path"].removeprefix(f"/{self.sessions.place}/"), MOST_FORM)
        if int(headers.get("content-length") or 0) > most:
            await self._answer(send, scope, *too_large(most))
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _completed(message.get("headers", ()))
            await send(message)

        await self.app(scope, _counted(receive, most), sending)

    def _foreign(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str, str] | None:
        """What is wrong with where a request comes from, and what it asks for."""
        hosts = [text for name, text in scope["headers"] if name.lower() == b"host"]
        if [one.decode("latin-1") for one in hosts] != [self.host]:
            return 421, "This is not that site", f"The portal answers at http://{self.host} only."
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return 405, "Not that way", "Pages are read and forms are sent; nothing else is."
        own = f"http://{self.host}"
        origin = headers.get("origin")
        if origin != own and (origin is not None or scope["method"] == "POST"):
            return 403, "From another site", "Only the portal's own pages may ask for this."
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return (
                403,
                "From another site",
                "Open the portal by the link that the terminal shows, not from a page.",
            )
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            return 400, "No request", "The length of the request is no number."
        return None

    def _stranger(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str, str] | None:
        """What is wrong with who asks. Puts the session into the scope."""
        folder, path = f"/{self.sessions.place}/", scope["path"]
        if not path.startswith(folder):
            return 404, "Nothing is here", "Open the portal by the link that the terminal shows."
        by_itself = path.endswith(LIVE)
        found = self.sessions.find(_cookie(headers.get("cookie", "")), goes_on=not by_itself)
        scope["session"] = found
        if found is None and path != f"{folder}enter" and not path.startswith(f"{folder}static/"):
            why = (
                "The session has ended, or was never begun. The terminal shows a new link when one has ended."
            )
            return 401, "Your session has ended", why
        return None

    async def _answer(self, send: Send, scope: Scope, status: int, heading: str, why: str) -> None:
        body, kind = self.refuse(status, heading, why, way_home(self.sessions, scope["path"]))
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        if status in (401, 413):
            headers.append((b"connection", b"close"))
        if status == 401:
            headers.append((b"hx-refresh", b"true"))
        await send({"type": "http.response.start", "status": status, "headers": _completed(headers)})
        await send({"type": "http.response.body", "body": body})


def set_cookie(sessions: Sessions, session: Session) -> str:
    """The `Set-Cookie` header that opens a session in a browser."""
    lasts = f"Path=/{sessions.place}/; Max-Age={LONGEST_S:.0f}"
    return f"{COOKIE}={session.cookie}; {lasts}; HttpOnly; SameSite=Strict"


def _cookie(header: str) -> str:
    """What the portal's cookie says; nothing if there is none, or more than one."""
    pairs = [one.strip().partition("=") for one in header.split(";")]
    found = [text for name, _, text in pairs if name == COOKIE]
    return found[0] if len(found) == 1 else ""


def way_home(sessions: Sessions, path: str) -> str:
    """The folder of all pages as seen from a path in it, so that nobody is told its name; else nothing."""
    return "./" + "../" * (path.count("/") - 2) if path.startswith(f"/{sessions.place}/") else ""


def too_large(most: int) -> tuple[int, str, str]:
    """Status, heading and sentence for a request of more bytes than are taken."""
    why = f"The portal takes {most >> 20:,} MB at a time. Larger tables are put in by `tercet upload`."
    return 413, "Too large", why


def _counted(receive: Receive, most: int) -> Receive:
    """The same, which raises TooLarge when more bytes have come than are taken, whatever was announced."""
    came = 0

    async def counting() -> Message:
        nonlocal came
        message = await receive()
        came += len(message.get("body", b""))
        if came > most:
            raise TooLarge(most)
        return message

    return counting


def _completed(headers: Any) -> list[tuple[bytes, bytes]]:
    """Headers of an answer, with those that every one has."""
    given = [(bytes(name), bytes(text)) for name, text in headers]
    there = {name.lower() for name, _ in given}
    more = ((name.encode(), text.encode()) for name, text in HEADERS.items())
    return given + [(name, text) for name, text in more if name.lower() not in there]
