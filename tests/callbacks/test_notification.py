"""Messages about a run, sent to servers on this machine; none of them can fail or hold up a run."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

import treadle
from treadle.callbacks import EmailNotification, Notification, WebhookNotification


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


class Hook(ThreadingHTTPServer):
    daemon_threads = True
    received: list[Any]
    status = 200


class HookHandler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers["X-Key"], json.loads(body)))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook(("127.0.0.1", 0), HookHandler) as server:
        server.received = []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


class MailHandler(socketserver.StreamRequestHandler):
    """As much of SMTP as one message takes."""

    def handle(self) -> None:
        say = lambda line: self.wfile.write(f"{line}\r\n".encode())  # noqa: E731
        say("220 here")
        for raw in self.rfile:
            word = raw.decode().strip()
            self.server.lines.append(word)
            if word.upper() == "DATA":
                say("354 go on")
                for body in self.rfile:
                    if body.strip() == b".":
                        break
                    self.server.body.append(body.decode().rstrip())
            say("221 bye" if word.upper() == "QUIT" else "250 ok")
            if word.upper() == "QUIT":
                return


@pytest.fixture
def mail() -> Iterator[Any]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), MailHandler) as server:
        server.daemon_threads = True
        server.lines, server.body = [], []
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def failures(run: treadle.Run) -> list[str]:
    return [event.details["error"] for event in run.events if event.kind == "notification_failed"]


def test_a_webhook_gets_the_end_and_what_is_due(fit: Callable[..., Any], hook: Hook) -> None:
    url = f"http://127.0.0.1:{hook.server_port}/run?token=secret"
    notification = WebhookNotification(url, {"X-Key": "abc"}, every=treadle.Every(epochs=2))
    run, _ = fit([notification])
    assert not failures(run)
    messages = sorted(hook.received, key=lambda message: message[2]["step"])
    assert [(message["status"], message["epoch"]) for _, _, message in messages] == [
        ("running", 2),
        ("ended", 3),
    ]
    path, key, last = messages[-1]
    assert (path, key) == ("/run?token=secret", "abc")
    assert last["reason"] == "max_epochs=3 reached"
    assert last["results"]["val/loss"] == run.history["val/loss"][-1]
    assert "val/loss: " in last["text"]
    assert "secret" not in json.dumps([run.fields, run.config, run.environment])


def test_a_failed_run_is_told_of(fit: Callable[..., Any], hook: Hook) -> None:
    class Fail(treadle.Callback):
        def on_step_end(self, state: treadle.State) -> None:
            state.results["train/loss"] = float("nan")
            raise RuntimeError("failed on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fit([WebhookNotification(f"http://127.0.0.1:{hook.server_port}"), Fail()])
    ((_, _, message),) = hook.received
    assert (message["status"], message["reason"]) == ("failed", "RuntimeError: failed on purpose")
    assert message["results"] == {"train/loss": "nan"}


def test_an_email_is_sent(fit: Callable[..., Any], mail: Any) -> None:
    port = mail.server_address[1]
    notification = EmailNotification(
        ["a@example.org", "b@example.org"], "treadle@example.org", "127.0.0.1", port, security="none"
    )
    run, _ = fit([notification], "my-run")
    assert not failures(run)
    assert [line for line in mail.lines if line.lower().startswith("rcpt")] == [
        "rcpt TO:<a@example.org>",
        "rcpt TO:<b@example.org>",
    ]
    assert "Subject: my-run: ended" in mail.body
    assert "epoch 3, step 12" in mail.body


def test_a_server_that_refuses_or_never_answers_does_not_fail_or_hold_up_the_run(
    fit: Callable[..., Any], hook: Hook
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = closed.getsockname()[1]
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        hook.status = 500
        callbacks = [
            WebhookNotification(f"http://127.0.0.1:{nobody}"),
            EmailNotification(["a@b"], "c@d", "127.0.0.1", port, security="starttls", timeout=0.1),
        ]
        began = time.monotonic()
        run, _ = fit(callbacks, max_steps=1)
        assert time.monotonic() - began < 5
    assert run.status == "finished"
    assert len(failures(run)) == 2
    assert "Connection refused" in failures(run)[0]
    run, _ = fit([WebhookNotification(f"http://127.0.0.1:{hook.server_port}")], max_steps=1)
    assert "HTTP Error 500" in failures(run)[0]


def test_whatever_a_notification_does_the_run_goes_on(fit: Callable[..., Any]) -> None:
    class Broken(Notification):
        def send(self, subject: str, text: str, facts: dict[str, Any]) -> None:
            raise KeyError("broken")

    class Slow(Notification):
        def send(self, subject: str, text: str, facts: dict[str, Any]) -> None:
            time.sleep(3)

    began = time.monotonic()
    run, _ = fit([Broken(), Slow(timeout=0.05)], max_steps=2)
    assert time.monotonic() - began < 2.5
    assert failures(run) == ["KeyError: 'broken'", "not delivered after 0.05 seconds"]
    assert run.weights_sha256 == fit(max_steps=2)[0].weights_sha256


def test_the_base_class_logs(fit: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="treadle"):
        fit([Notification()], max_steps=1)
    assert "max_steps=1 reached" in caplog.text


def test_a_missing_password_is_a_failed_message(fit: Callable[..., Any], monkeypatch: Any, mail: Any) -> None:
    monkeypatch.delenv("TREADLE_SMTP_PASSWORD", raising=False)
    port = mail.server_address[1]
    run, _ = fit([EmailNotification(["a@b"], "c@d", "127.0.0.1", port, user="me")], max_steps=1)
    assert len(failures(run)) == 1  # this server has no STARTTLS, so nothing is sent in the open
    assert not mail.body


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: WebhookNotification("file:///etc/passwd"), "http"),
        (lambda: WebhookNotification("http:///path"), "http"),
        (lambda: Notification(timeout=0), "timeout is 0"),
        (lambda: Notification(every=treadle.Every(steps=3)), "epochs"),
        (lambda: EmailNotification("a@b", "c@d"), "list of addresses"),
        (lambda: EmailNotification(["ab"], "c@d"), "'ab' is no address"),
        (lambda: EmailNotification(["a@b"], "c@d\nBcc: e@f"), "no address"),
        (lambda: EmailNotification(["a@b"], "c@d", security="ssl"), "'starttls', 'tls', 'none'"),
        (lambda: EmailNotification(["a@b"], "c@d", user="me", security="none"), "password"),
    ],
)
def test_notifications_check_their_arguments(make: Callable[[], treadle.Callback], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
