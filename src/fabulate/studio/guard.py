"""Who may ask: whoever opened the page by the URL with its token, from this very origin; and what an answer may load.

A page of another site can send requests to 127.0.0.1 too, and its name can be made to lead here (DNS rebinding). So
the Host has to be ours, an Origin where the browser tells one has to be the same, and each request needs the cookie
that the URL with the token sets, which browsers send along only from our own page (SameSite=Strict) and never show to
scripts (HttpOnly). Nothing changes by GET. What is served may load from here alone (Content-Security-Policy), and a
report, a file that anybody may have written, runs no script.
"""

import asyncio
import secrets
from collections.abc import Iterable
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 1 << 20  # bytes of a request; pictures that are dropped have a bound of their own
LARGEST_UPLOAD = 20 << 20
UPLOADS = ("/api/explore/image",)
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Guard:
    """Middleware that lets through what comes from our own page.

    `token`: of the URL. `hosts`: the names that a Host may be; `anywhere`: addresses in numbers too, which no name can
    be made to lead to, where the server listens to other machines.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Iterable[str], port: int, anywhere: bool = False) -> None:
        self.app, self.token, self.port, self.anywhere = app, token, port, anywhere
        self.hosts = {host.lower() for host in hosts}
        self.cookie = f"fabulate_{port}"  # cookies know no ports: two studios would take each other's

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if (refusal := self.refusal(scope, headers)) is not None:
            await refusal(scope, receive, self.sealed(send))
            return
        given = self.given(scope)
        body = Body(receive, LARGEST_UPLOAD if scope["path"] in UPLOADS else LARGEST_BODY)
        with suppress(asyncio.CancelledError):  # the server ends before a long answer does: no more to say
            await self.app(scope, body, self.sealed(send, self.token if given else None))

    def refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Why a request is not answered, if it is not."""
        host = headers.get("host", "")
        if not self.ours(host):
            return PlainTextResponse(f"This is no name of the studio: {host!r}.", 421)
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return PlainTextResponse(f"A page of another origin may not ask: {origin!r}.", 403)
        if not (self.given(scope) or self.known(headers)):
            return PlainTextResponse("Open the address that `fabulate studio` printed: it ends with a token.", 401)
        return None

    def ours(self, host: str) -> bool:
        """Whether a Host is one that we are reached by."""
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        return port == self.port and (name in self.hosts or (self.anywhere and numeric(name)))

    def given(self, scope: Scope) -> bool:
        """Whether the page is opened with the right token."""
        if scope["path"] != "/" or scope["method"] not in ("GET", "HEAD"):
            return False
        tokens = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])
        return secrets.compare_digest(tokens[0].encode(), self.token.encode())

    def known(self, headers: Headers) -> bool:
        """Whether the cookie of an opened page comes along."""
        try:
            cookies = SimpleCookie(headers.get("cookie", ""))
        except CookieError:
            return False
        value = cookies[self.cookie].value if self.cookie in cookies else ""
        return secrets.compare_digest(value.encode(), self.token.encode())

    def sealed(self, send: Send, token: str | None = None) -> Send:
        """`send`, with our headers, and with the cookie where the token was given."""

        async def sealing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if token is not None:
                    headers.append("Set-Cookie", f"{self.cookie}={token}; Path=/; HttpOnly; SameSite=Strict")
            await send(message)

        return sealing


class Body:
    """`receive`, up to so many bytes. Errors: `HTTPException`, which becomes the answer."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self.receive, self.limit, self.taken = receive, limit, 0

    async def __call__(self) -> Message:
        message = await self.receive()
        self.taken += len(message.get("body", b""))
        if self.taken > self.limit:
            raise HTTPException(413, f"A request may have {self.limit:,} bytes, and this one has more.")
        return message


def numeric(name: str) -> bool:
    """Whether a host is an address in numbers.

    >>> numeric("192.168.0.7"), numeric("::1"), numeric("evil.example")
    (True, True, False)
    """
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
