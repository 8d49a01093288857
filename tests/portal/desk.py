"""A member's desk: the page of a portal in her browser, looked at also as people do who cannot see it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import attrs
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, expect

from tests.portal.conftest import SHOTS, Lake

LONG_MS = 40_000
LOOKS = {
    "light": (1280, "light"),
    "dark": (1280, "dark"),
    "narrow": (400, "light"),
    "narrow-dark": (400, "dark"),
}
expect.set_options(timeout=LONG_MS)


@attrs.define(eq=False)
class Desk:
    """A member's browser: a context of its own, and the page that is open."""

    page: Page
    at: str
    axe: str
    complaints: list[str]

    def go(self, path: str) -> Page:
        """Open a page of the portal."""
        self.page.goto(self.at + path)
        return self.page

    def look(self, name: str, *, barriers: bool = True) -> None:
        """Look for barriers in both themes, and keep pictures; the page must not be wider than the screen.

        Without `barriers`, which take as long as the rest, of a page that has been looked at with less on it.
        """
        page = self.page
        for look, (width, theme) in LOOKS.items():
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=theme)
            if page.locator("picture").count():
                page.wait_for_timeout(300)  # until the browser has taken notice of the other theme
            page.evaluate("Promise.all([...document.images].map(one => one.decode().catch(() => null)))")
            (SHOTS / look).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SHOTS / look / f"{name}.png", full_page=True)
            if barriers and look in ("light", "narrow-dark"):
                self._no_barriers(name, look)
            wide = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert wide <= 0, f"{name} is {wide} pixels wider than {look}"
        page.set_viewport_size({"width": 1280, "height": 900})
        page.emulate_media(color_scheme="light")

    def _no_barriers(self, name: str, look: str) -> None:
        if not self.page.evaluate("typeof axe !== 'undefined'"):
            self.page.evaluate(self.axe)
        found = self.page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
        grave = [one for one in found if one["impact"] in ("serious", "critical")]
        told = [(one["id"], [node["html"][:120] for node in one["nodes"]][:3]) for one in grave]
        assert not grave, f"{name}, {look}: {told}"


def sit_down(lake: Lake, browser: Browser, axe: str, members: Iterable[str]) -> Iterator[dict[str, Desk]]:
    """A desk of each of these members, whose link was followed."""
    found = {}
    for member in members:
        context = browser.new_context()
        page = context.new_page()
        page.set_default_timeout(LONG_MS)
        complaints: list[str] = []
        page.on("pageerror", lambda error, told=complaints: told.append(str(error)))
        page.on("console", lambda line, told=complaints: _heard(line, told))
        page.on("dialog", lambda dialog, told=complaints: _closed(dialog, told))
        page.goto(lake.links[member][-1])
        found[member] = Desk(page, page.url.rstrip("/"), axe, complaints)
    yield found
    for desk in found.values():
        desk.page.context.close()


def _heard(line: ConsoleMessage, complaints: list[str]) -> None:
    """Note an error; that a request was given up for a newer one is none, nor that it was refused."""
    no_error = ("htmx:sendAbort", "htmx:afterRequest", "Failed to load resource: the server responded")
    if line.type == "error" and not line.text.startswith(no_error):
        complaints.append(line.text)


def _closed(dialog: Dialog, complaints: list[str]) -> None:
    complaints.append(f"a script has run: {dialog.message}")
    dialog.dismiss()


def require_quiet(desks: Mapping[str, Desk]) -> None:
    """No page has complained: no script has failed, and nothing was kept from loading."""
    told = {member: [*desk.complaints] for member, desk in desks.items() if desk.complaints}
    for desk in desks.values():
        desk.complaints.clear()
    assert not told


def submit(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).click()
