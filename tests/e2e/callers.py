"""An application that calls the gateway, down to the bytes where an SDK would hide them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson

from llm.providers.counting import count_message_tokens, count_text_tokens
from llm.types import ChatMessage
from tests.books import all_calls
from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hello there"}]
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Answer:
    """A response as it stood on the wire."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return orjson.loads(self.content)


@dataclass(frozen=True)
class Application:
    """What calls `gateway` with the key `secret`."""

    gateway: Gateway
    secret: str
    http: httpx2.Client

    def at(self, gateway: Gateway) -> Application:
        return replace(self, gateway=gateway)

    def using(self, secret: str) -> Application:
        return replace(self, secret=secret)

    def chat(self, model: str = "gpt-4o", *, path: str = CHAT, **fields: Any) -> httpx2.Response:
        """Says hello; the reply is read to its end, streams too."""
        return self.send("POST", path, body=hello(model, **fields))

    def send(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        sent = {"authorization": f"Bearer {self.secret}", **(headers or {})}
        return self.http.request(method, f"{self.gateway.url}{path}", content=body, headers=sent)

    def connect(self) -> socket.socket:
        """A connection of its own, without a byte on it."""
        address = urlsplit(self.gateway.url)
        return socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=PATIENCE_S)

    def send_bytes(self, *pieces: bytes) -> Answer:
        """A request of no HTTP library's making, on a connection that it says to close."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            return read_answer(connection)

    def begin(self, model: str, **fields: Any) -> socket.socket:
        """A chat whose request is sent and whose reply nobody has read a byte of."""
        connection = self.connect()
        connection.sendall(self.request_bytes(hello(model, **fields)))
        return connection

    def request_bytes(self, body: bytes, *, path: str = CHAT) -> bytes:
        head = (
            f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {self.secret}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


def hello(model: str = "gpt-4o", **fields: Any) -> bytes:
    """The body of a request that says hello."""
    return orjson.dumps({"model": model, "messages": HELLO, **fields})


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    """What comes, up to the piece that holds the mark."""
    received = b""
    while mark not in received:
        piece = connection.recv(65_536)
        assert piece, f"the connection ended before {mark!r}: {received!r}"
        received += piece
    return received


def read_to_end(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    received = b""
    while piece := connection.recv(65_536):
        received += piece
    return received


def read_answer(connection: socket.socket) -> Answer:
    """One whole response whose length is announced or whose connection is closed after it."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65_536)
        assert piece, f"no response: {received!r}"
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = headers.get("content-length")
    while length is None or len(body) < int(length):
        if not (piece := connection.recv(65_536)):
            break
        body += piece
    return Answer(int(status_line.split()[1]), headers, body)


def events_of(reply: httpx2.Response) -> list[Any]:
    """The data of a stream's events; [DONE] as that text."""
    datas = [event.removeprefix("data: ") for event in reply.text.replace("\r\n", "\n").split("\n\n") if event]
    return [data if data == "[DONE]" else orjson.loads(data) for data in datas if not data.startswith(":")]


def text_of(reply: httpx2.Response) -> str:
    """What the model said, whole or as a stream."""
    if not reply.headers["content-type"].startswith("text/event-stream"):
        content: str = reply.json()["choices"][0]["message"]["content"]
        return content
    chunks = [event for event in events_of(reply) if isinstance(event, dict)]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def error_of(reply: httpx2.Response | Answer) -> dict[str, Any]:
    """The error of a refusal in an OpenAI dialect, which must have its four members and no other."""
    assert reply.headers["content-type"] == "application/json"
    [(name, error)] = reply.json().items()
    assert name == "error"
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return dict(error)


def native_error_of(reply: httpx2.Response | Answer) -> dict[str, Any]:
    """The error of a refusal in the native dialect."""
    assert reply.headers["content-type"] == "application/json"
    [(name, error)] = reply.json().items()
    assert name == "error"
    assert set(error) == {"message", "code"}
    return dict(error)


def estimated(completion: str, *, prompt: str = HELLO[0]["content"]) -> tuple[int, int]:
    """Prompt and completion tokens as we count them for ourselves."""
    return count_message_tokens((ChatMessage(role="user", content=prompt),)), count_text_tokens(completion)


def assert_nothing_happened(upstream: FakeUpstream) -> None:
    """No row was written and no byte sent."""
    assert all_calls() == []
    assert upstream.ledger.entries() == ()
    assert upstream.ledger.open_calls == 0
