"""The page of runs that go on, served to this machine alone: it is told of whatever is new.

What is in the way of anyone but the reader: the socket listens on the loopback interface; every path begins
with a random token; Host has to be the server's own name, so that no other name can be made to lead here;
an Origin other than its own is refused; and there is nothing to do but read.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from treadle.report import markup
from treadle.report.document import data_of, policy_of, render, sections_of
from treadle.runs import Run, RunError

logger = logging.getLogger("treadle")

ADDRESS = "127.0.0.1"
STREAMS = 32
"""Pages that may listen at a time."""

_BEAT = 15.0  # seconds without news after which a stream says that it is alive


class LiveServer(ThreadingHTTPServer):
    """Serves one page, and tells it what is new; use it as a context manager.

    Args:
        runs: what to show; they may go on, have ended, or be killed while one watches.
        port: where to listen; 0 takes a free one.
        every: seconds between two looks at the runs.

    Raises:
        OSError: the port is taken.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, runs: Sequence[Run], port: int = 0, every: float = 1.0) -> None:
        self.runs = list(runs)
        self.every = every
        self.token = secrets.token_urlsafe(24)
        self.streams = threading.BoundedSemaphore(STREAMS)
        self.closing = threading.Event()
        self._changed = threading.Condition()
        self._news = (0, "")
        super().__init__((ADDRESS, port), Handler)
        self.hosts = {f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")}
        threading.Thread(target=self._look, name="watch", daemon=True).start()

    @property
    def url(self) -> str:
        """What to open in a browser; whoever knows it may look."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def wait_for_news(self, seen: int, seconds: float) -> tuple[int, str]:
        """The newest state of the runs and its number, as soon as that is not `seen`."""
        with self._changed:
            self._changed.wait_for(lambda: self._news[0] != seen or self.closing.is_set(), seconds)
            return self._news

    def server_close(self) -> None:
        """Stop looking, let streams end, and close the socket."""
        self.closing.set()
        with self._changed:
            self._changed.notify_all()
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever broke off in the middle of a request is nobody's concern."""
        logger.debug("a request to the live page failed", exc_info=True)

    def _look(self) -> None:
        before: Any = None
        while not self.closing.is_set():
            try:
                now = [mark_of(run) for run in self.runs]
                if now != before:
                    text = markup.embedded({"data": data_of(self.runs), "sections": sections_of(self.runs)})
                    with self._changed:
                        self._news = (self._news[0] + 1, text)
                        self._changed.notify_all()
                    before = now
            except (RunError, OSError):  # a folder that is moved or removed: the page keeps what it has
                before = None
            self.closing.wait(self.every)


def mark_of(run: Run) -> tuple[Any, ...]:
    """Differs whenever something new is recorded."""
    assert run.path is not None
    marks: list[Any] = [run.status]
    for name in ("metrics.sqlite", "metrics.sqlite-wal", "run.json", "checkpoints"):
        try:
            found = os.stat(Path(run.path) / name)
            marks.append((found.st_mtime_ns, found.st_size))
        except FileNotFoundError:
            marks.append(None)
    return tuple(marks)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: LiveServer
    server_version = "treadle"
    sys_version = ""
    timeout = 20  # for whoever begins a request and does not end it, or stops reading

    def do_GET(self) -> None:
        """The page, its stream of news, or a refusal."""
        refused = self._refusal()
        pages: dict[str, Callable[[], None]] = {"": self._page, "events": self._events}
        _, token, *rest = self.path.split("/")
        own = hmac.compare_digest(token.encode(), self.server.token.encode())
        if refused or not own or len(rest) != 1 or rest[0] not in pages:
            self._say(HTTPStatus.FORBIDDEN if refused else HTTPStatus.NOT_FOUND)
            return
        try:
            pages[rest[0]]()
        except OSError:  # whoever asked is gone
            self.close_connection = True
        except RunError as error:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n".encode())

    def _refusal(self) -> bool:
        origin = self.headers.get("Origin")
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0] not in self.server.hosts:
            return True
        if origin is not None and origin != f"http://{hosts[0]}":
            return True
        return self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")

    def _page(self) -> None:
        content = render(self.server.runs, live=True).encode("utf-8", "replace")
        self._say(HTTPStatus.OK, content, "text/html; charset=utf-8")

    def _events(self) -> None:
        if not self.server.streams.acquire(blocking=False):
            self._say(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        try:
            self._head(HTTPStatus.OK, "text/event-stream")
            self.close_connection = True
            seen = 0
            while not self.server.closing.is_set():
                number, text = self.server.wait_for_news(seen, _BEAT)
                news = f"event: report\nid: {number}\ndata: {text}\n\n" if number != seen else ": alive\n\n"
                self.wfile.write(news.encode("utf-8", "replace"))
                seen = number
        finally:
            self.server.streams.release()

    def _say(self, status: HTTPStatus, content: bytes = b"", kind: str = "text/plain; charset=utf-8") -> None:
        content = content or f"{status.value} {status.phrase}\n".encode()
        self._head(status, kind, len(content))
        self.wfile.write(content)

    def _head(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        self.send_response(status)
        fields = {
            "Content-Type": kind,
            "Content-Security-Policy": f"{policy_of(live=True)}; frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            **({} if length is None else {"Content-Length": str(length)}),
        }
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *given: Any) -> None:
        """Say nothing: the token would stand in every line."""
