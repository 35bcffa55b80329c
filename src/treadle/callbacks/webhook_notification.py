"""Tell a web service how a run goes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from treadle.callbacks.notification import Notification
from treadle.events import Every


class WebhookNotification(Notification):
    """POST a JSON object when the run ends, and every so many epochs; see `Notification`.

    The object has `text` (which Slack, Mattermost and others show) and the facts: name, id, status, reason,
    step, epoch, results. Override `payload` for a service that wants another.

    Args:
        url: an http or https address. It is not written into the record.
        headers: further request headers by name.
        every, timeout: see `Notification`.

    Raises:
        ValueError: `url` is no http or https address.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        every: Every | None = None,
        timeout: float = 10.0,
    ) -> None:
        super().__init__(every, timeout)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                "WebhookNotification: url must be an address that starts with http:// or https://"
            )
        self.url = url
        self.headers = dict(headers or {})

    def payload(self, subject: str, text: str, facts: dict[str, Any]) -> dict[str, Any]:
        """What is posted."""
        return {"text": text, **facts}

    def send(self, subject: str, text: str, facts: dict[str, Any]) -> None:
        """Deliver one message; an answer of 400 and above is an error."""
        import urllib.request

        body = json.dumps(self.payload(subject, text, facts)).encode()
        headers = {"Content-Type": "application/json", **self.headers}
        request = urllib.request.Request(self.url, body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=self.timeout) as answer:
            answer.read(1)
