"""Asking a portal as a browser does, or as an attacker would: over a socket, with whatever headers."""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from urllib.parse import urlencode

import attrs


@attrs.frozen
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    text: str


@attrs.define
class Browser:
    """Keeps a cookie, and asks as its own pages would; headers that are given replace those."""

    host: str
    cookie: str = ""

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        given = {name.replace("_", "-").lower(): value for name, value in headers.items()}
        sent = {"host": self.host, **({"cookie": self.cookie} if self.cookie else {})}
        if method == "POST":
            sent |= {"origin": f"http://{self.host}", "content-length": str(len(body))}
        sent = {name: value for name, value in (sent | given).items() if value}
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders()
            connection.send(body)
            found = connection.getresponse()
            told = {name.lower(): value for name, value in found.getheaders()}
            return Answer(found.status, told, found.read().decode("utf-8", "replace"))
        finally:
            connection.close()

    def open(self, link: str) -> str:
        """Follow the link of the terminal; the folder of all pages."""
        path = link.removeprefix(f"http://{self.host}")
        answer = self.ask("GET", path)
        assert answer.status == 303, answer.text
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return answer.headers["location"].rstrip("/")

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, fields: Mapping[str, object], **headers: str) -> Answer:
        body = urlencode(fields, doseq=True).encode()
        headers = {"content_type": "application/x-www-form-urlencoded"} | headers
        return self.ask("POST", path, body, **headers)

    def csrf(self, path: str) -> str:
        """The token in the forms of a page."""
        found = re.search(r'name="csrf" value="([^"]+)"', self.get(path).text)
        assert found is not None
        return found[1]


def multipart(fields: Mapping[str, str], name: str, title: str, content: bytes) -> tuple[bytes, str]:
    """The body of a form with a file, and its content type."""
    mark = "----tercet"
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{one}"\r\n\r\n{text}\r\n'
        for one, text in fields.items()
    ]
    head = f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{title}"\r\n\r\n'
    body = "".join(parts).encode() + head.encode() + content + f"\r\n--{mark}--\r\n".encode()
    return body, f"multipart/form-data; boundary={mark}"
