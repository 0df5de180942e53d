"""Those whom messages go to, over real sockets: a webhook's receiver, and a mail server."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Answers each POST with `status`, or with whatever `answer` writes."""

    url: str
    status: int = 204
    answer: Callable[[BaseHTTPRequestHandler], object] | None = None
    received: list[Received] = field(default_factory=list)


@dataclass
class Mailbox:
    """Takes every mail, or refuses each one with the line of `refusal`."""

    port: int
    refusal: str = ""
    mails: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)


class _HttpServer(ThreadingHTTPServer):
    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A sender that hangs up is what some tests want."""


class _MailServer(socketserver.ThreadingTCPServer):
    daemon_threads = True


@contextmanager
def running_receiver() -> Iterator[Receiver]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received(self.path, headers, body))
            if receiver.answer is not None:
                receiver.answer(self)
                return
            self.send_response(receiver.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """The test's output is not for it."""

    server = _HttpServer(Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    with _serving(server):
        yield receiver


@contextmanager
def running_mailbox() -> Iterator[Mailbox]:
    """As much of SMTP as a client without TLS and without a password speaks."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 mailbox.test")
            while line := self.rfile.readline():
                match line.split(b" ", 1)[0].strip().upper():
                    case b"EHLO":
                        self.say("250 mailbox.test")
                    case b"RCPT":
                        mailbox.recipients.append(line.decode().partition("<")[2].partition(">")[0])
                        self.say(mailbox.refusal or "250 fine")
                    case b"DATA":
                        self.say("354 go on")
                        mailbox.mails.append(message_from_bytes(self.text(), policy=policy.default))
                        self.say("250 taken")
                    case b"QUIT":
                        self.say("221 bye")
                        return
                    case _:
                        self.say("250 fine")

        def text(self) -> bytes:
            lines = []
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                lines.append(line.removeprefix(b"."))
            return b"".join(lines)

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    server = _MailServer(("127.0.0.1", 0), Handler)
    mailbox = Mailbox(server.server_address[1])
    with _serving(server):
        yield mailbox


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
    return port
