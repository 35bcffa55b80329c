"""The live page's server: who may look, and that there is nothing else to do."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.report.samples import HOSTILE, hostile, usual

from treadle.report.live import STREAMS, LiveServer
from treadle.runs import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return usual(tmp_path / "run")


@pytest.fixture
def server(run: Run) -> Iterator[LiveServer]:
    with LiveServer([Run.open(run.path or "")], every=0.02) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: LiveServer, path: str, method: str = "GET", **fields: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for name, value in {"Host": f"127.0.0.1:{server.server_port}", **fields}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    return connection.getresponse()


def news(response: http.client.HTTPResponse) -> dict[str, Any]:
    """The next state of the runs."""
    while True:
        line = response.readline().decode()
        assert line, "the stream has ended"
        if line.startswith("data: "):
            found: dict[str, Any] = json.loads(line[len("data: ") :])
            return found


def test_the_page_and_its_news(server: LiveServer, run: Run) -> None:
    page = ask(server, f"/{server.token}/")
    assert page.status == 200
    text = page.read().decode()
    assert "EventSource" in text
    policy = page.getheader("Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none';")
    assert "connect-src 'self';" in policy
    assert "unsafe" not in policy
    assert page.getheader("Cache-Control") == "no-store"
    stream = ask(server, f"/{server.token}/events")
    assert stream.getheader("Content-Type") == "text/event-stream"
    first = news(stream)
    assert first["data"]["runs"][0]["id"] == run.id
    with Run.reopen(run.path or "") as writer:
        writer.append_steps([("train/new", 601, 1.5)])
    while all(curve["name"] != "train/new" for curve in news(stream)["data"]["runs"][0]["curves"]):
        pass


@pytest.mark.parametrize("path", ["/", "/wrong/", "/wrong/events", "//", "/events", "/../"])
def test_without_the_token_there_is_nothing(server: LiveServer, path: str) -> None:
    response = ask(server, path)
    assert response.status == 404
    assert response.read() == b"404 Not Found\n"


def test_nothing_else_is_there(server: LiveServer) -> None:
    for path in ("run.json", "events/", "../../etc/passwd", "%2e%2e", "?x", "events?x"):
        assert ask(server, f"/{server.token}/{path}").status == 404
    assert ask(server, f"/{server.token}").status == 404


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({}, 200),
    ],
)
def test_other_names_and_origins_are_refused(server: LiveServer, fields: dict[str, str], status: int) -> None:
    for path in ("", "events"):
        assert ask(server, f"/{server.token}/{path}", **fields).status == status
    own = f"http://127.0.0.1:{server.server_port}"
    assert ask(server, f"/{server.token}/", Origin=own).status == 200
    local = f"localhost:{server.server_port}"
    assert ask(server, f"/{server.token}/", Host=local, Origin=f"http://{local}").status == 200
    assert ask(server, f"/{server.token}/", Host=local, Origin=own).status == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"])
def test_it_can_only_be_read(server: LiveServer, run: Run, method: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path(run.path or "").rglob("*")}
    assert ask(server, f"/{server.token}/", method).status == 501
    ask(server, f"/{server.token}/").read()
    assert {path: path.stat().st_mtime_ns for path in Path(run.path or "").rglob("*")} == before


def test_it_listens_on_this_machine_alone(server: LiveServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 32
    with LiveServer([]) as other:
        assert other.token != server.token


def test_what_is_no_request_is_survived(server: LiveServer) -> None:
    for sent in (
        b"\x00\xff\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"",
    ):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
            connection.sendall(sent)
    assert ask(server, f"/{server.token}/").status == 200


def test_streams_are_bounded_and_given_back(server: LiveServer) -> None:
    streams = [ask(server, f"/{server.token}/events") for _ in range(STREAMS)]
    assert {stream.status for stream in streams} == {200}
    assert ask(server, f"/{server.token}/events").status == 503


def test_news_of_hostile_runs_are_one_line_of_json(tmp_path: Path) -> None:
    with LiveServer([hostile(tmp_path / "run")], every=0.02) as server:
        number, text = server.wait_for_news(0, 10)
    assert number == 1
    assert "\n" not in text
    assert "<" not in text
    assert any(curve["name"] == f"train/{HOSTILE}" for curve in json.loads(text)["data"]["runs"][0]["curves"])


def test_a_run_that_is_removed_ends_nothing(tmp_path: Path) -> None:
    import shutil

    run = usual(tmp_path / "run")
    with LiveServer([Run.open(run.path or "")], every=0.01) as server:
        assert server.wait_for_news(0, 10)[0] == 1
        shutil.rmtree(run.path or "")
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        response = ask(server, f"/{server.token}/")
        assert response.status == 503
        assert b"is missing" in response.read()
        server.shutdown()
