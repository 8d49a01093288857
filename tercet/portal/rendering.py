"""Pages from templates: everything that goes into one is escaped, whoever has written it.

Names of tables and columns, purposes, reasons and lines of audit logs come from other members. Templates
escape by themselves, and no text is marked as safe anywhere; `shown` makes visible what would hide, turn or
move text.
"""

from __future__ import annotations

import datetime as dt
import hmac
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Self, TypeVar
from urllib.parse import urlencode

import attrs
import jinja2
from rich.filesize import decimal
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tercet.errors import TercetError
from tercet.portal.audit_book import LOG_WAIT_S
from tercet.portal.guard import Session
from tercet.portal.state import Portal

Handler = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")
EACH = 50
"""Items of a long list on a page."""
MOST_FIELDS = 20_000
"""Fields of a form: a box for each column of the widest tables."""

LARGEST = 1e15
"""Of a number in a form."""

_LINES = re.compile(r"[\n\t]")


def shown(text: object) -> str:
    """What somebody else has written, with nothing in it that hides or turns text; lines stay lines."""
    given = str(text)
    return given if _LINES.sub("", given).isprintable() else ascii(given)


def when(seconds: float | None) -> str:
    """A time, to the minute; nodes may say one that no calendar has."""
    try:
        return "" if seconds is None else f"{dt.datetime.fromtimestamp(seconds, dt.UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError, TypeError):
        return "at no time that calendars have"


def lasted(seconds: float) -> str:
    """A span of time."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"
    )


def number(value: float) -> str:
    """A figure, to five digits."""
    return f"{value:.5g}"


TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("tercet.portal"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"shown": shown, "when": when, "lasted": lasted, "size": decimal, "number": number}


def portal_of(request: Request) -> Portal:
    """The portal that serves a request."""
    found: Portal = request.app.state.portal
    return found


def page(request: Request, template: str, status: int = 200, **values: Any) -> Response:
    """A page, or a part of one."""
    portal = portal_of(request)
    session: Session | None = request.scope.get("session")
    text = TEMPLATES.get_template(template).render(
        portal=portal,
        status=status,
        at=portal.at,
        here=request.url.path,
        csrf="" if session is None else session.csrf,
        **values,
    )
    return Response(text, status, media_type="text/html")


@attrs.frozen
class Listed(Generic[T]):
    """What a page shows of a long list: the items, which page of how many it is, how many items there are.

    `asked` is what else was asked of the list, as the words of a search.
    """

    items: Sequence[T]
    now: int
    pages: int
    count: int
    asked: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, request: Request, found: Sequence[T], each: int = EACH) -> Self:
        """The page that the query of a request names, or the nearest that there is."""
        place = request.query_params.get("page", "1")
        pages = max(1, -(-len(found) // each))
        now = int(place) if place.isascii() and place.isdigit() and len(place) < 7 else 1
        now = max(1, min(pages, now))
        asked = [(name, text) for name, text in request.query_params.items() if name != "page"]
        return cls(found[(now - 1) * each : now * each], now, pages, len(found), tuple(asked))

    def query(self, page: int) -> str:
        """What asks for another page of the same list."""
        return "?" + urlencode([*self.asked, ("page", str(page))])


def in_place(answer: Response) -> Response:
    """A page that comes to where a part of it was asked for: its middle, without another request.

    Nobody has clicked, so the page must not be asked for anew, which would keep the session open.
    """
    answer.headers.update({"HX-Retarget": "#main", "HX-Reselect": "#main", "HX-Reswap": "outerHTML"})
    return answer


async def read_logs(request: Request) -> None:
    """Have what is new in the logs read, for a page that shows some of it, and wait no longer than it may.

    Not for a page that comes because they have been read; see `once_read`.
    """
    if not getattr(request.state, "logs_are_read", False):
        await portal_of(request).book.read(LOG_WAIT_S)


def once_read(handler: Handler) -> Handler:
    """Whether the logs are being read; a part of a page, and once they have been, the page."""

    async def answer(request: Request) -> Response:
        book = portal_of(request).book
        if book.reading:
            return page(request, "reading.html", book=book)
        request.state.logs_are_read = True
        return in_place(await handler(request))

    return answer


def live(request: Request, path: str, *names: str) -> str:
    """Where a page asks for itself, with the same query, once what it shows is there; see `in_place`."""
    return f"{portal_of(request).at(path, *names)}/live?{request.url.query}"


def refusal(status: int, heading: str, why: str, home: str) -> tuple[bytes, str]:
    """A page that says no, for whoever has no session too; and its content type.

    `home` is the way to the folder of all pages, which is secret: nothing where it must not be linked.
    """
    text = TEMPLATES.get_template("refused.html").render(heading=heading, why=why, status=status, home=home)
    return text.encode(), "text/html; charset=utf-8"


def see(request: Request, path: str, *names: str) -> Response:
    """Send the browser on to another page of the portal, after a form."""
    return RedirectResponse(portal_of(request).at(path, *names), 303)


def download(text: str | bytes, name: str, kind: str) -> Response:
    """A file to be saved, under a name of ours."""
    plain = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)
    return Response(text, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{plain}"'})


@attrs.frozen
class Said:
    """What a form says: a text, all texts, or whether a box is ticked, by the field's name."""

    form: FormData

    def text(self, name: str) -> str:
        """One field, without spaces at its ends; empty if it is not there."""
        found = self.form.get(name, "")
        return found.strip() if isinstance(found, str) else ""

    def texts(self, name: str) -> list[str]:
        """All fields of a name, those that are not empty."""
        return [one for one in self.form.getlist(name) if isinstance(one, str) and one]

    def ticked(self, name: str) -> bool:
        """Whether a box is ticked."""
        return self.text(name) == "on"

    def number(self, name: str, what: str) -> float | None:
        """A number; None if the field is empty. Raises TercetError for what is none, or beyond all use."""
        text = self.text(name)
        try:
            found = float(text) if text else None
        except ValueError:
            found = math.nan
        if found is not None and not math.isfinite(found):
            raise TercetError(f"{what} is {text!r:.40}, which is no number")
        if found is not None and abs(found) > LARGEST:
            raise TercetError(f"{what} is {text!r:.40}, which is more than {LARGEST:g}")
        return found

    def whole(self, name: str, what: str) -> int | None:
        """A whole number; None if the field is empty. Raises TercetError for what is none."""
        found = self.number(name, what)
        if found is not None and found != int(found):
            raise TercetError(f"{what} is {found:g}, which is no whole number")
        return None if found is None else int(found)


async def form_of(request: Request) -> Said:
    """The form of a request. Raises TercetError unless it has the CSRF token of the session."""
    form = await request.form(max_files=1, max_fields=MOST_FIELDS)
    session: Session = request.scope["session"]
    given = request.headers.get("x-csrf-token") or form.get("csrf")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode(), session.csrf.encode()):
        raise ForgedError
    return Said(form)


class ForgedError(Exception):
    """A form came without the token of the session."""


def table_of(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Cells as CSV: in quotes where they need them, and none that a spreadsheet would run."""
    return "".join(",".join(map(_cell, row)) + "\r\n" for row in (heads, *rows))


def _cell(value: object) -> str:
    text = str(value)
    if isinstance(value, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r"):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text
