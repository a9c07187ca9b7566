"""``--serve``: the events on a web page, for a device without a screen. Audio is never sent."""

from __future__ import annotations

import asyncio
import base64
import csv
import hashlib
import heapq
import hmac
import io
import ipaddress
import json
import re
import secrets
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from edge.errors import SerError
from edge.events import Estimate, Event, Start, Status
from edge.output import json_line
from edge.palette import colours, letters

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PAGE = Path(__file__).parent / "page.html"
COOKIE = "ser_token"
# All assumed.
KEPT_EVENTS = 10_000  # for browsers that come later, and for the downloads; some MB
KEPT_ESTIMATES = 600  # of which there are many: some minutes of speech
CLIENT_EVENTS = 500  # how far a browser may fall behind before the oldest are dropped
PING_S = 15.0  # proxies close what is silent for longer
SHORTEST_TOKEN = 16


class Page:
    """A sink that shows events to browsers, from a thread of its own.

    Parameters
    ----------
    host, port : str, int
        Where to listen. Elsewhere than on this machine a token is required.
    token : str or None
        What a browser has to know; None for a new one if one is required.

    Raises
    ------
    SerError
        If the packages are missing, the address cannot be used, or the token is too short.
    """

    def __init__(self, host: str, port: int, token: str | None) -> None:
        if token is not None and len(token) < SHORTEST_TOKEN:
            raise SerError(f"--token: expected at least {SHORTEST_TOKEN} characters")
        if token is None and not _is_loopback(host):
            token = secrets.token_urlsafe(16)
        self.token = token
        try:
            import uvicorn
        except ImportError as error:
            raise SerError(
                "the web page needs more packages: pip install -r edge/requirements-serve.txt"
            ) from error
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family)
        except OSError as error:
            raise SerError(
                f"cannot listen on {host}, port {port} ({error.strerror}); "
                "try another --port or --host"
            ) from error
        self.port: int = self._socket.getsockname()[1]
        self._host = host
        self._history: deque[tuple[int, str]] = deque(maxlen=KEPT_EVENTS)
        self._estimates: deque[tuple[int, str]] = deque(maxlen=KEPT_ESTIMATES)
        self._hello = ""
        self._n_events = 0
        self._session = secrets.token_hex(4)  # in every event's number: they start at 1 each time
        self._lock = threading.Lock()
        self._clients: set[asyncio.Queue[tuple[int, str] | None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            _application(self), log_level="error", lifespan="off", timeout_graceful_shutdown=1,
            server_header=False,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, daemon=True, name="page")

    @property
    def url(self) -> str:
        """Where a browser finds the page, token included."""
        host = socket.gethostname() if self._host in ("0.0.0.0", "::") else self._host
        host = f"[{host}]" if ":" in host else host
        query = f"?token={quote(self.token, safe='')}" if self.token else ""
        return f"http://{host}:{self.port}/{query}"

    def __enter__(self) -> Page:
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            time.sleep(0.01)
        print(f"the page is at {self.url}", file=sys.stderr)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._send_to_all, None)
        self._server.should_exit = True
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._socket])

        asyncio.run(serve())

    def send(self, event: Event, source: str) -> None:
        """Show one event to every browser; a slow one never holds anything up."""
        line = json_line(event, source)
        with self._lock:
            self._n_events += 1
            if isinstance(event, Start):
                look = {"colours": colours(event.labels), "letters": letters(event.labels)}
                hello = json.dumps({**event.to_json(), **look})
                self._hello = f"event: hello\ndata: {hello}\n\n"
            entry = (self._n_events, line)
            if isinstance(event, Estimate):
                self._estimates.append(entry)
            elif not isinstance(event, Status) or event.message:
                self._history.append(entry)
        if self._loop is not None and self._loop.is_running():
            self._loop.call_soon_threadsafe(self._send_to_all, entry)

    def close(self) -> None:
        """Do nothing: browsers see the summary until the program ends."""

    def _send_to_all(self, entry: tuple[int, str] | None) -> None:
        for client in self._clients:
            if client.full():
                client.get_nowait()
            client.put_nowait(entry)

    async def stream(self, last_id: str) -> AsyncIterator[str]:
        """Yield server-sent events: hello, what is kept since ``last_id``, what comes."""
        session, _, number = last_id.partition("-")
        after = int(number) if session == self._session and number.isdigit() else 0
        client: asyncio.Queue[tuple[int, str] | None] = asyncio.Queue(CLIENT_EVENTS)
        self._clients.add(client)
        try:
            with self._lock:
                hello, seen = self._hello, self._n_events
                kept = [entry for entry in self._kept() if entry[0] > after]
            yield f"retry: 1000\n\n{hello}"
            for n, line in kept:
                yield f"id: {self._session}-{n}\ndata: {line}\n\n"
            while True:
                try:
                    entry = await asyncio.wait_for(client.get(), PING_S)
                except asyncio.TimeoutError:
                    yield ": still here\n\n"
                    continue
                if entry is None:
                    return
                if entry[0] > seen:
                    if not hello:  # this browser was here before the start
                        hello = self._hello
                        yield hello
                    yield f"id: {self._session}-{entry[0]}\ndata: {entry[1]}\n\n"
        finally:
            self._clients.discard(client)

    def lines(self) -> list[str]:
        """Return the events that are kept, each as a line of JSON."""
        with self._lock:
            return [line for _, line in self._kept()]

    def _kept(self) -> Iterator[tuple[int, str]]:
        return heapq.merge(self._history, self._estimates)

    def refusal(self, request: Request) -> tuple[int, str] | None:
        """Return status and reason if ``request`` must not be answered; None if it may."""
        name = re.sub(r":\d+$", "", request.headers.get("host", ""))
        if not self._is_our_name(name.strip("[]")):
            return 421, f"this device is not called {name!r}"
        origin = request.headers.get("origin")
        if origin is not None and origin != f"http://{request.headers['host']}":
            return 403, "other pages may not read this one"
        if request.headers.get("sec-fetch-site") == "cross-site" and request.url.path != "/":
            return 403, "other pages may not read this one"
        if self.token is not None:
            cookie = unquote(request.cookies.get(COOKIE, ""))
            given = request.query_params.get("token") or cookie
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return 403, "open the address that the program has shown when it started"
        return None

    def _is_our_name(self, name: str) -> bool:
        """Return whether a Host may be ours; names that others point at us are not."""
        if _is_loopback(self._host):
            return name in ("localhost", "127.0.0.1", "::1", self._host)
        hostname = socket.gethostname()
        if name.lower() in ("localhost", self._host, hostname.lower(), f"{hostname}.local".lower()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _application(page: Page) -> Starlette:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
    from starlette.responses import (
        HTMLResponse,
        PlainTextResponse,
        RedirectResponse,
        Response,
        StreamingResponse,
    )
    from starlette.routing import Route

    html = PAGE.read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": content_security_policy(html),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }

    async def guard(request: Request, call_next: RequestResponseEndpoint) -> Response:
        refused = page.refusal(request)
        if refused is None:
            response = await call_next(request)
        else:
            response = PlainTextResponse(refused[1] + "\n", refused[0])
        response.headers.update(headers)
        return response

    async def index(request: Request) -> Response:
        if page.token is not None and "token" in request.query_params:
            # Out of the address bar and the history, into a cookie that scripts cannot read.
            response: Response = RedirectResponse("/", 303)
            cookie = quote(page.token, safe="")  # a header holds ASCII only
            response.set_cookie(COOKIE, cookie, httponly=True, samesite="strict")
            return response
        return HTMLResponse(html)

    async def events(request: Request) -> Response:
        stream = page.stream(request.headers.get("last-event-id", ""))
        return StreamingResponse(stream, media_type="text/event-stream")

    async def json_download(request: Request) -> Response:
        content = "[\n" + ",\n".join(page.lines()) + "\n]\n"
        return _download(Response(content, media_type="application/json"), "session.json")

    async def csv_download(request: Request) -> Response:
        return _download(
            Response(utterances_csv(page.lines()), media_type="text/csv"),
            "utterances.csv",
        )

    return Starlette(
        routes=[
            Route("/", index),
            Route("/events", events),
            Route("/session.json", json_download),
            Route("/utterances.csv", csv_download),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)],
    )


def _download(response: Response, name: str) -> Response:
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def utterances_csv(lines: list[str]) -> str:
    """Return the utterances, and the gaps between them, as CSV."""
    events = [json.loads(line) for line in lines]
    labels = next((list(e["probs"]) for e in events if "probs" in e), [])
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["start_s", "end_s", "label", "uncertain", "confidence", *labels])
    for event in events:
        if event["event"] == "utterance":
            row = [event[key] for key in ("start_s", "end_s", "label", "uncertain", "confidence")]
            writer.writerow([*row, *event["probs"].values()])
        elif event["event"] == "gap":
            writer.writerow([event["start_s"], event["end_s"], "(lost)"])
    return text.getvalue()


def content_security_policy(html: str) -> str:
    """Return the policy that allows the page's own style and script, and nothing else."""

    def allowed(tag: str) -> str:
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        return f"{tag}-src 'sha256-{digest}'"

    return "; ".join(
        [
            "default-src 'none'", allowed("style"), allowed("script"), "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
        ]
    )  # fmt: skip
