"""Attacks on the portal: other sites and names, no token, stolen cookies, forged forms, files, floods.

The portal is served over a real socket; there is no lake behind it, since none of these gets so far.
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from urllib.parse import quote

import pytest
import trio

from tercet.errors import ConfigError
from tercet.nodes.setup import make_cluster, make_member, make_node
from tercet.portal import guard
from tercet.portal.app import _routes, serve
from tercet.portal.guard import IDLE_S, LONGEST_S, MOST_FORM, MOST_UPLOAD, Sessions
from tests.portal.asking import Browser, multipart


class Clock:
    """The time by which sessions end."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A lake's file and an owner's key; the nodes are not there."""
    root = tmp_path_factory.mktemp("portal")
    parts = [make_node(f"n{i}", f"127.0.0.1:{9 + i}", root / f"n{i}") for i in range(3)]
    parts.append(make_member("clinic", ["owner", "analyst", "auditor"], root))
    make_cluster(parts, root / "cluster.toml", protocol="replicated")
    return root


@pytest.fixture
async def served(files, nursery):
    """A portal, its links so far, and the clock of its sessions."""
    clock, links = Clock(), []
    sessions = Sessions(clock=clock)
    start = partial(
        serve, files / "cluster.toml", files / "clinic.key", sessions=sessions, on_link=links.append
    )
    serving = await nursery.start(start)
    return serving, links, clock


async def thread(function, *args, **kwargs):
    return await trio.to_thread.run_sync(partial(function, *args, **kwargs))


@pytest.fixture
async def opened(served):
    """A browser with a session, and the folder of all pages."""
    serving, links, _ = served
    browser = Browser(serving.host)
    return browser, await thread(browser.open, links[-1])


async def test_a_link_opens_the_portal_once_and_the_cookie_is_for_nobody_else(served):
    serving, links, _ = served
    browser = Browser(serving.host)
    path = links[0].removeprefix(f"http://{serving.host}")
    answer = await thread(browser.get, path)
    cookie = answer.headers["set-cookie"]
    folder = answer.headers["location"]
    assert answer.status == 303
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert f"Path={folder}" in cookie  # which no other server on this machine is asked for
    assert len(folder) > 10
    again = await thread(Browser(serving.host).get, path)
    assert again.status == 403
    assert "set-cookie" not in again.headers
    assert "used before" in again.text


@pytest.mark.parametrize("token", ["", "guess", "é", "x" * 5000])
async def test_no_token_opens_nothing(served, token):
    serving, links, _ = served
    folder = links[0].split("/")[3]
    answer = await thread(Browser(serving.host).get, f"/{folder}/enter?token={quote(token)}")
    assert answer.status == 403
    assert "set-cookie" not in answer.headers


async def test_nothing_is_there_without_a_session(served):
    serving, links, _ = served
    folder = f"/{links[0].split('/')[3]}"
    browser = Browser(serving.host)
    for path in ("/", "/tables", "/studies", "/upload", "/audit", "/nodes", "/runs/x/roc.svg"):
        assert (await thread(browser.get, folder + path)).status == 401
    for path in ("/leave", "/upload", "/guided", "/studies/1/approve"):
        assert (await thread(browser.post, folder + path, {"csrf": "guess"})).status == 401
    for path in ("/", "/static/portal.css", "/enter", "/wrong/enter", f"{folder}", "/favicon.ico"):
        assert (await thread(browser.get, path)).status == 404
    refused = await thread(browser.get, f"{folder}/tables", hx_request="true")
    assert refused.headers["hx-refresh"] == "true"  # a page that comes again by itself shows that it is over


async def test_refusals_do_not_tell_the_folder_of_all_pages(served, opened):
    _, links, _ = served
    browser, at = opened
    folder = at.strip("/")
    stranger = Browser(browser.host)
    for path in ("/", "/enter", "/wrong/enter?token=x", "/favicon.ico", f"/{folder[:-1]}/", f"/{folder}"):
        answer = await thread(stranger.get, path)
        assert answer.status == 404
        assert folder not in answer.text + str(answer.headers)
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"content_length": "x"}):
        answer = await thread(stranger.get, "/", **headers)
        assert answer.status in (400, 403, 421)
        assert folder not in answer.text + str(answer.headers)
    for path, way in (("/tables", "./"), ("/studies/1/approve", "./../../"), ("/enter?token=x", "./")):
        answer = await thread(stranger.get, at + path)
        assert answer.status in (401, 403)
        assert folder not in answer.text + str(answer.headers)
        assert f'href="{way}static/portal.css"' in answer.text
    assert folder in links[0]
    known = await thread(browser.get, f"{at}/nothing")
    assert f'href="{at}/static/portal.css"' in known.text


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}", "[::1]:{port}", ""],
)
async def test_a_name_that_was_rebound_is_refused(opened, host):
    browser, at = opened
    port = browser.host.partition(":")[2]
    answer = await thread(browser.get, f"{at}/nodes", host=host.format(port=port))
    assert answer.status == 421 or (not host and answer.status == 400)
    assert "clinic" not in answer.text


async def test_two_hosts_are_refused(opened):
    browser, at = opened
    name, port = browser.host.split(":")
    hosts = f"Host: {browser.host}\r\nHost: evil.example\r\n"
    lines = f"GET {at}/nodes HTTP/1.1\r\n{hosts}Cookie: {browser.cookie}\r\n\r\n"

    def raw() -> bytes:
        with socket.create_connection((name, int(port)), timeout=10) as sock:
            sock.sendall(lines.encode())
            return sock.recv(4096)

    told = await thread(raw)
    assert told.split()[1] in (b"400", b"421")


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:1", "https://{host}", ""]
)
async def test_forms_of_other_sites_are_refused(opened, origin):
    browser, at = opened
    fields = {"csrf": await thread(browser.csrf, f"{at}/upload")}
    given = origin.format(host=browser.host)
    answer = await thread(browser.post, f"{at}/leave", fields, origin=given)
    assert answer.status == 403
    assert (await thread(browser.get, f"{at}/upload")).status == 200  # the session goes on


@pytest.mark.parametrize(
    "headers",
    [{"sec_fetch_site": "cross-site"}, {"sec_fetch_site": "same-site"}, {"origin": "http://evil.example"}],
)
async def test_pages_are_not_read_by_other_sites(opened, headers):
    browser, at = opened
    answer = await thread(browser.get, f"{at}/upload", **headers)
    assert answer.status == 403
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("token", [None, "", "guess"])
async def test_forms_without_the_token_of_the_session_do_nothing(opened, token):
    browser, at = opened
    fields = {} if token is None else {"csrf": token}
    answer = await thread(browser.post, f"{at}/leave", fields)
    assert answer.status == 403
    assert "not of this session" in answer.text
    assert (await thread(browser.get, f"{at}/upload")).status == 200


async def test_every_form_wants_the_token(opened):
    """No page that does something forgets to ask for it."""
    browser, at = opened
    posts = [one.path for one in _routes() if "POST" in (getattr(one, "methods", None) or ())]
    assert len(posts) > 15
    for path in posts:
        filled = at + path.replace("{", "x").replace("}", "x")
        answer = await thread(browser.post, filled, {"csrf": "guess", "digest": "0", "number": "1"})
        assert answer.status == 403, path


async def test_a_cookie_that_was_stolen_is_worth_nothing_after_the_portal_was_closed(opened, served):
    browser, at = opened
    _, links, _ = served
    thief = Browser(browser.host, browser.cookie)
    token = await thread(browser.csrf, f"{at}/upload")
    assert (await thread(browser.post, f"{at}/leave", {"csrf": token})).status == 200
    assert (await thread(thief.get, f"{at}/upload")).status == 401
    assert (await thread(thief.post, f"{at}/leave", {"csrf": token})).status == 401
    assert len(links) == 2  # and the terminal shows a new one
    assert links[0] != links[1]
    await thread(browser.open, links[1])
    assert (await thread(thief.get, f"{at}/upload")).status == 401


async def test_sessions_end(opened, served):
    browser, at = opened
    _, links, clock = served
    clock.now += IDLE_S - 1
    assert (await thread(browser.get, f"{at}/upload")).status == 200
    clock.now += IDLE_S - 1
    for path in ("/audit/live", "/nodes/memory.svg?at=1", "/nodes/live"):
        answer = await thread(browser.get, at + path)  # what pages ask by themselves keeps nothing open
        assert answer.status == 200
        assert "hx-refresh" not in answer.headers
    clock.now += 2
    assert (await thread(browser.get, f"{at}/upload")).status == 401
    assert len(links) == 2
    await thread(browser.open, links[1])
    for _ in range(int(LONGEST_S / IDLE_S) + 1):
        clock.now += IDLE_S - 1
        last = await thread(browser.get, f"{at}/upload")
    assert last.status == 401


@pytest.mark.parametrize(
    "cookie", ["tercet-portal=", "tercet-portal=x", "{own}; tercet-portal=x", "other=1", "é=é"]
)
async def test_other_cookies_are_no_session(opened, cookie):
    browser, at = opened
    stranger = Browser(browser.host)
    given = cookie.format(own=browser.cookie)
    answer = await thread(stranger.get, f"{at}/upload", cookie=given)
    assert answer.status == 401


async def test_answers_say_that_nothing_else_may_be_loaded_or_kept(opened):
    browser, at = opened
    for path in ("/upload", "/tables", "/static/portal.css", "/nothing"):
        headers = (await thread(browser.get, at + path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "server" not in headers


async def test_pages_have_no_script_or_style_within_and_ask_nobody_else(opened):
    browser, at = opened
    text = (await thread(browser.get, f"{at}/upload")).text
    assert "<script src=" in text
    assert "<style" not in text
    assert " style=" not in text
    assert " onclick" not in text
    assert "http://" not in text
    assert "https://" not in text
    assert browser.cookie.partition("=")[2] not in text


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/guard.py",
        "/static//etc/passwd",
        "/upload/..%2f..%2fetc%2fpasswd",
        "/upload/..",
        "/runs/..%2f..%2fclinic.key/results/json",
        "/studies/..%2fclinic.key/study.json",
    ],
)
async def test_paths_lead_nowhere_else(opened, path):
    browser, at = opened
    answer = await thread(browser.get, at + path)
    assert answer.status in (404, 409, 502)
    assert "root:" not in answer.text
    assert "PRIVATE" not in answer.text
    assert "import" not in answer.text


@pytest.mark.parametrize("title", ["../../evil.csv", "/etc/cron.d/evil.csv", "..\\evil.csv", "a\x00.csv"])
async def test_names_of_files_are_not_names_here(opened, served, title, tmp_path):
    browser, at = opened
    token = await thread(browser.csrf, f"{at}/upload")
    body, kind = multipart({"csrf": token}, "file", title, b"id,age\na,1\nb,2\n")
    answer = await thread(browser.ask, "POST", f"{at}/upload", body, content_type=kind)
    assert answer.status in (303, 400, 409)
    drafts = served[0].portal.drafts
    written = sorted(one.name for one in drafts._folder.rglob("*") if one.is_file())
    assert set(written) <= {"table.csv"}
    if answer.status == 303:
        page = await thread(browser.get, answer.headers["location"])
        assert page.status == 200
    drafts.clear()
    assert not list(drafts._folder.iterdir())


async def test_an_upload_without_end_is_refused_before_it_is_read(opened):
    browser, at = opened
    answer = await thread(browser.ask, "POST", f"{at}/upload", b"", content_length=str(1 << 30))
    assert answer.status == 413
    assert "tercet upload" in answer.text
    answer = await thread(browser.ask, "POST", f"{at}/leave", b"", content_length=str(MOST_FORM + 1))
    assert answer.status == 413


async def test_an_upload_that_does_not_say_how_long_it_is_is_cut(opened, monkeypatch):
    browser, at = opened
    assert MOST_UPLOAD < 1 << 30
    monkeypatch.setattr(guard, "MOST_UPLOAD", 1 << 20)
    token = await thread(browser.csrf, f"{at}/upload")
    name, port = browser.host.split(":")
    head = (
        f"POST {at}/upload HTTP/1.1\r\nHost: {browser.host}\r\nOrigin: http://{browser.host}\r\n"
        f"Cookie: {browser.cookie}\r\nX-CSRF-Token: {token}\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    begin = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'

    def flood() -> tuple[bytes, int]:
        sent = 0
        with socket.create_connection((name, int(port)), timeout=20) as sock:
            sock.sendall(head.encode() + f"{len(begin):x}\r\n".encode() + begin + b"\r\n")
            with contextlib.suppress(OSError):
                while sent < 64 << 20:
                    sock.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                    sent += 65536
            told = b""
            with contextlib.suppress(OSError):
                told = sock.recv(4096)
            return told, sent

    told, sent = await thread(flood)
    assert sent < 64 << 20 or told.split()[1] == b"413"
    assert (await thread(browser.get, f"{at}/upload")).status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"])
async def test_other_methods_are_refused(opened, method):
    browser, at = opened
    assert (await thread(browser.ask, method, f"{at}/upload")).status == 405


async def test_names_in_addresses_are_escaped(opened):
    browser, at = opened
    answer = await thread(browser.get, f"{at}/upload/%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert "<script>alert" not in answer.text
    answer = await thread(
        browser.get, f"{at}/audit?q=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&node=%3Cb%3E&page=-1"
    )
    assert "<script>alert" not in answer.text
    assert "<b>" not in answer.text


async def test_a_lake_that_is_away_is_named(opened):
    browser, at = opened
    answer = await thread(browser.get, f"{at}/tables")
    assert answer.status == 502
    assert "party 0" in answer.text
    nodes = await thread(browser.get, f"{at}/nodes")
    assert nodes.status == 200
    assert nodes.text.count("does not answer") == 3


async def test_it_listens_on_this_machine_alone(served):
    serving, _, _ = served
    port = int(serving.host.split(":")[1])
    assert serving.host.startswith("127.0.0.1:")
    told = await trio.Path("/proc/net/tcp").read_text()
    listening = [line.split()[1] for line in told.splitlines() if line.split()[3] == "0A"]
    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening


async def test_a_port_that_is_taken(served, files):
    serving, _, _ = served
    port = int(serving.host.split(":")[1])
    with pytest.raises(ConfigError, match=f"port {port} of 127.0.0.1"):
        await serve(files / "cluster.toml", files / "clinic.key", port=port)
