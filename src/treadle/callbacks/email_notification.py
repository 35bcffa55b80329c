"""Tell somebody by e-mail how a run goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from treadle.callbacks.notification import Notification
from treadle.events import Every

SECURITY = ("starttls", "tls", "none")


class EmailNotification(Notification):
    """Send an e-mail when the run ends, and every so many epochs; see `Notification`.

    The password is read from an environment variable when a message is sent, so it is in no configuration
    and no record.

    Args:
        recipients: addresses.
        sender: the address it comes from.
        host, port: the SMTP server. Port 0 takes the usual one of `security`: 587, 465, 25.
        user: who logs in; None does not log in.
        password_variable: the environment variable with the password.
        security: "starttls", "tls" from the first byte, or "none" (a server on this machine).
        every, timeout: see `Notification`.

    Raises:
        ValueError: no recipient, an address without @, an unknown `security`, a password over "none".
    """

    def __init__(
        self,
        recipients: Sequence[str],
        sender: str,
        host: str = "localhost",
        port: int = 0,
        user: str | None = None,
        password_variable: str = "TREADLE_SMTP_PASSWORD",
        security: str = "starttls",
        every: Every | None = None,
        timeout: float = 10.0,
    ) -> None:
        super().__init__(every, timeout)
        if isinstance(recipients, str) or not recipients:
            raise ValueError(f"EmailNotification: recipients is {recipients!r}; give a list of addresses")
        for address in (*recipients, sender):
            if "@" not in address or any(character in address for character in "\r\n"):
                raise ValueError(f"EmailNotification: {address!r} is no address")
        if security not in SECURITY:
            raise ValueError(
                f"EmailNotification: security is {security!r}; allowed are {', '.join(map(repr, SECURITY))}"
            )
        if user is not None and security == "none":
            raise ValueError("EmailNotification: a password is not sent with security='none'")
        self.recipients = list(recipients)
        self.sender = sender
        self.host = host
        self.port = port
        self.user = user
        self.password_variable = password_variable
        self.security = security

    def send(self, subject: str, text: str, facts: dict[str, Any]) -> None:
        """Deliver one e-mail."""
        # Imported here: few runs send mail, and every import of treadle would wait for it.
        import smtplib
        import ssl
        from email.message import EmailMessage

        message = EmailMessage()
        message["Subject"] = " ".join(subject.split())
        message["From"], message["To"] = self.sender, ", ".join(self.recipients)
        message.set_content(text)
        context = ssl.create_default_context()
        connect: dict[str, Callable[[], smtplib.SMTP]] = {
            "starttls": lambda: smtplib.SMTP(self.host, self.port or 587, timeout=self.timeout),
            "tls": lambda: smtplib.SMTP_SSL(
                self.host, self.port or 465, timeout=self.timeout, context=context
            ),
            "none": lambda: smtplib.SMTP(self.host, self.port or 25, timeout=self.timeout),
        }
        with connect[self.security]() as server:
            if self.security == "starttls":
                server.starttls(context=context)
            if self.user is not None:
                server.login(self.user, os.environ[self.password_variable])
            server.send_message(message)
