"""The one way out, against real sockets: what goes up, what comes down, and what each failure says."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from llm.providers.base import ProviderSettings
from llm.providers.transport import BadStatus, NeverSent, ReplyTooLarge, UpstreamResponse, UpstreamTransport, client_on
from tests.fakes import FakeUpstream, Script
from tests.gateway_process import free_port

CHAT = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
PLAIN = b'{"answer": 42}'


class RawServer:
    """Answers each request with the next of `replies`, to the byte, and b"" by hanging up."""

    def __init__(self) -> None:
        self.replies: list[bytes] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self.url = ""
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> RawServer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1/chat"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await self._server.wait_closed()

    def reply(self, body: bytes, *, status: str = "200 OK", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.replies.append("\r\n".join([*lines, "", ""]).encode() + body)

    async def closed(self, count: int) -> None:
        """Waits until only that many connections are open."""
        async with asyncio.timeout(2):
            while self.open != count:  # noqa: ASYNC110  # the sockets' own time, which no event tells
                await asyncio.sleep(0.005)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self._writers.append(writer)
        try:
            while request := await self._read(reader):
                self.requests.append(request)
                if not (reply := self.replies.pop(0)):
                    break
                writer.write(reply)
        except ConnectionError:
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        length = re.search(rb"(?i)content-length: (\d+)", head)
        return head + await reader.readexactly(int(length[1]) if length else 0)


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    async with RawServer() as server:
        yield server


Transport = Callable[..., UpstreamTransport]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """Builds transports that are closed when the test ends."""
    built: list[UpstreamTransport] = []

    def build(
        *, limit: int = 1_000_000, connect_timeout_s: float = 2.0, idle_timeout_s: float = 2.0
    ) -> UpstreamTransport:
        settings = ProviderSettings(
            "openai",
            connect_timeout_s=connect_timeout_s,
            idle_timeout_s=idle_timeout_s,
            max_reply_bytes=limit,
        )
        built.append(UpstreamTransport(settings))
        return built[-1]

    yield build
    for one in built:
        await one.aclose()


def asking(url: str, body: bytes = CHAT, **headers: str) -> httpx2.Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Request("POST", url, content=body, headers=names)


def chat_url(upstream: FakeUpstream) -> str:
    return f"{upstream.openai_base_url}/chat/completions"


# --- What goes up -----------------------------------------------------------------------------------------------------


async def test_the_request_goes_up_as_it_is(transport: Transport, server: RawServer) -> None:
    server.reply(PLAIN)
    response = await transport().handle_async_request(asking(server.url, x_own="1", authorization="Bearer k"))
    assert (response.status_code, await response.aread()) == (200, PLAIN)
    head, body = server.requests[0].split(b"\r\n\r\n", 1)
    lines = head.lower().split(b"\r\n")
    assert (lines[0], body) == (b"post /v1/chat http/1.1", CHAT)
    assert {b"x-own: 1", b"authorization: bearer k", b"content-length: %d" % len(CHAT)} < set(lines)


@pytest.mark.parametrize("asked", [None, "gzip, br", "*"])
async def test_compression_is_never_asked_for(transport: Transport, server: RawServer, asked: str | None) -> None:
    server.reply(PLAIN)
    request = asking(server.url) if asked is None else asking(server.url, accept_encoding=asked)
    await (await transport().handle_async_request(request)).aread()
    assert re.findall(rb"(?i)accept-encoding: (.*)\r\n", server.requests[0]) == [b"identity"]


async def test_nothing_comes_from_the_environment(
    transport: Transport, server: RawServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    server.reply(PLAIN)
    client = client_on(transport())
    assert (await client.post(server.url, content=CHAT)).content == PLAIN
    assert b"authorization" not in server.requests[0].lower()


async def test_no_cookie_is_kept_or_sent(transport: Transport, upstream: FakeUpstream) -> None:
    upstream.enqueue(Script(set_cookie="session=1; Path=/"), Script())
    client = client_on(transport())
    for _ in range(2):
        response = await client.post(chat_url(upstream), content=CHAT, headers={"authorization": "Bearer k"})
        assert response.status_code == 200
        assert "set-cookie" not in response.headers
    assert list(client.cookies.jar) == []
    assert "cookie" not in {name.lower() for name in upstream.ledger.entries()[1].headers}


async def test_no_redirect_is_followed(transport: Transport, server: RawServer) -> None:
    server.reply(b"", status="302 Found", location="/elsewhere")
    response = await client_on(transport()).post(server.url, content=CHAT)
    assert (response.status_code, response.headers["location"], len(server.requests)) == (302, "/elsewhere", 1)


# --- What comes down --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(PLAIN, mtime=0)),
        ("x-gzip", gzip.compress(PLAIN, mtime=0)),
        (" GZIP ", gzip.compress(PLAIN, mtime=0)),
        ("deflate", zlib.compress(PLAIN)),
        ("identity", PLAIN),
        ("", PLAIN),
    ],
)
async def test_a_compressed_reply_is_unpacked(
    transport: Transport, server: RawServer, encoding: str, packed: bytes
) -> None:
    server.reply(packed, content_encoding=encoding, content_type="application/json")
    response = await transport().handle_async_request(asking(server.url))
    assert await response.aread() == PLAIN
    assert response.headers.raw == [(b"content-type", b"application/json")]


async def test_a_compressed_stream_is_unpacked_as_it_comes(transport: Transport, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(is_gzipped=True, chunks=3, hang_after_events=2))
    body = CHAT[:-1] + b',"stream":true}'
    response = await transport().handle_async_request(
        asking(chat_url(upstream), body, authorization="Bearer k", content_type="application/json")
    )
    received = b""
    async for piece in response.aiter_raw():
        received += piece
        if received.count(b"\n\n") == 2:
            break
    await response.aclose()
    assert received.startswith(b"data: {")


async def test_an_encoding_that_nobody_asked_for_is_a_failure_after_sending(
    transport: Transport, server: RawServer
) -> None:
    server.replies = [b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 1000\r\n\r\nfirst"]
    with pytest.raises(httpx2.ReadError) as failed:
        await transport().handle_async_request(asking(server.url))
    assert not isinstance(failed.value, NeverSent)
    await server.closed(0)


async def test_broken_compression_is_a_failure_after_sending(transport: Transport, server: RawServer) -> None:
    server.reply(b"no gzip at all", content_encoding="gzip")
    response = await transport().handle_async_request(asking(server.url))
    with pytest.raises(httpx2.ReadError, match="compressed reply is corrupt"):
        await response.aread()


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_a_reply_may_be_as_large_as_the_limit(transport: Transport, server: RawServer, encoding: str) -> None:
    for size in (1000, 1001):
        body = b"x" * size
        server.reply(gzip.compress(body, mtime=0) if encoding == "gzip" else body, content_encoding=encoding)
    limited = transport(limit=1000)
    assert await (await limited.handle_async_request(asking(server.url))).aread() == b"x" * 1000
    response = await limited.handle_async_request(asking(server.url))
    with pytest.raises(ReplyTooLarge):
        await response.aread()


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Appends the most that was allocated inside, in bytes."""
    peak: list[int] = []
    tracemalloc.start()
    try:
        yield peak
    finally:
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()


async def test_a_gzip_bomb_is_never_held(transport: Transport, server: RawServer) -> None:
    bomb = gzip.compress(b"0" * 50_000_000)
    server.reply(bomb, content_encoding="gzip")
    limited = transport(limit=1_000_000)
    with peak_memory() as peak:
        response = await limited.handle_async_request(asking(server.url))
        with pytest.raises(ReplyTooLarge):
            await response.aread()
    assert peak[0] < 5_000_000


async def test_a_reply_without_end_is_refused_at_the_limit(transport: Transport, server: RawServer) -> None:
    server.replies = [b"HTTP/1.1 200 OK\r\n\r\n" + b": keep-alive\n\n" * 10_000]
    response = await transport(limit=2000).handle_async_request(asking(server.url))
    with pytest.raises(ReplyTooLarge):
        await response.aread()
    await server.closed(0)


async def test_a_reply_that_was_read_gives_its_connection_back(transport: Transport, server: RawServer) -> None:
    one = transport()
    for _ in range(3):
        server.reply(PLAIN)
        await (await one.handle_async_request(asking(server.url))).aread()
    assert (server.connections, len(server.requests)) == (1, 3)


async def test_a_reply_that_was_left_closes_its_connection(transport: Transport, server: RawServer) -> None:
    server.replies = [b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nfirst"]
    response = await transport().handle_async_request(asking(server.url))
    pieces = response.aiter_raw()
    assert await anext(pieces) == b"first"
    await response.aclose()
    await server.closed(0)


# --- Surely never sent ------------------------------------------------------------------------------------------------


async def test_a_refused_connection_was_never_sent(transport: Transport) -> None:
    with pytest.raises(NeverSent):
        await transport().handle_async_request(asking(f"http://127.0.0.1:{free_port()}/"))


async def test_a_name_that_nobody_knows_was_never_sent(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NeverSent):
        await transport().handle_async_request(asking("http://upstream.invalid/"))


@contextmanager
def deaf_server() -> Iterator[int]:
    """A port whose queue of connections is full, so that nobody answers."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(3):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)  # noqa: FBT003  # the socket's own signature
            caller.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


async def test_a_connection_that_takes_too_long_was_never_sent(transport: Transport) -> None:
    with deaf_server() as port, pytest.raises(NeverSent):
        await transport(connect_timeout_s=0.05).handle_async_request(asking(f"http://127.0.0.1:{port}/"))


async def test_a_failed_tls_handshake_was_never_sent(transport: Transport) -> None:
    async def speak_plainly(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"this is no TLS")
        writer.close()

    async with await asyncio.start_server(speak_plainly, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(NeverSent):
            await transport().handle_async_request(asking(f"https://127.0.0.1:{port}/"))


async def test_an_impossible_address_was_never_sent(transport: Transport) -> None:
    with pytest.raises(NeverSent):
        await transport().handle_async_request(asking("ftp://127.0.0.1/"))


# --- Maybe sent -------------------------------------------------------------------------------------------------------


async def test_a_hang_up_after_the_request_may_have_worked(transport: Transport, server: RawServer) -> None:
    server.replies = [b""]
    with pytest.raises(httpx2.ReadError) as failed:
        await transport().handle_async_request(asking(server.url))
    assert not isinstance(failed.value, NeverSent)
    assert len(server.requests) == 1


async def test_a_hang_up_on_a_used_connection_is_not_tried_again(transport: Transport, server: RawServer) -> None:
    server.reply(PLAIN)
    server.replies.append(b"")
    one = transport()
    await (await one.handle_async_request(asking(server.url))).aread()
    with pytest.raises(httpx2.ReadError):
        await one.handle_async_request(asking(server.url))
    assert (server.connections, len(server.requests)) == (1, 2)


@pytest.mark.parametrize("reply", [b"nonsense\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
async def test_what_is_no_http_may_have_worked(transport: Transport, server: RawServer, reply: bytes) -> None:
    server.replies = [reply]
    with pytest.raises(httpx2.ReadError) as failed:
        await transport().handle_async_request(asking(server.url))
    assert not isinstance(failed.value, NeverSent)


async def test_silence_before_the_headers_is_a_timeout(transport: Transport, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(hangs_before_headers=True))
    with pytest.raises(httpx2.ReadTimeout):
        await transport(idle_timeout_s=0.05).handle_async_request(asking(chat_url(upstream), authorization="Bearer k"))


async def test_silence_in_the_middle_is_a_timeout(transport: Transport, upstream: FakeUpstream) -> None:
    upstream.set_default(Script(hang_after_events=1))
    response = await transport(idle_timeout_s=0.05).handle_async_request(
        asking(chat_url(upstream), authorization="Bearer k")
    )
    with pytest.raises(httpx2.ReadTimeout):
        await response.aread()
    await response.aclose()


@pytest.mark.parametrize("style", ["rst", "close"])
async def test_a_cut_in_the_middle_is_a_failure(transport: Transport, upstream: FakeUpstream, style: str) -> None:
    upstream.set_default(Script(cut_after_events=1, cut_style="rst" if style == "rst" else "close"))
    response = await transport().handle_async_request(asking(chat_url(upstream), authorization="Bearer k"))
    with pytest.raises(httpx2.ReadError) as failed:
        await response.aread()
    await response.aclose()
    assert not isinstance(failed.value, NeverSent | ReplyTooLarge)


# --- Posting without an SDK -------------------------------------------------------------------------------------------


async def read(answer: UpstreamResponse) -> bytes:
    body = b"".join([piece async for piece in answer.body])
    await answer.body.aclose()
    return body


async def test_a_post_returns_the_reply_before_its_body(transport: Transport, server: RawServer) -> None:
    server.replies = [b"HTTP/1.1 201 Created\r\ncontent-length: 10\r\nx-id: 7\r\n\r\nfirst"]
    answer = await transport().exchange("POST", server.url, headers={"x-own": "1", "accept-encoding": "br"}, body=CHAT)
    assert (answer.status, answer.headers["X-Id"]) == (201, "7")
    head, body = server.requests[0].split(b"\r\n\r\n", 1)
    lines = head.lower().split(b"\r\n")
    assert body == CHAT
    assert b"x-own: 1" in lines
    assert [line for line in lines if line.startswith(b"accept-encoding")] == [b"accept-encoding: identity"]
    await answer.body.aclose()
    await server.closed(0)


async def test_a_callers_own_accept_encoding_never_goes_up(transport: Transport, server: RawServer) -> None:
    server.reply(PLAIN)
    await read(await transport().exchange("POST", server.url, headers={"Accept-Encoding": "br"}, body=CHAT))
    assert re.findall(rb"(?i)accept-encoding: (.*)\r\n", server.requests[0]) == [b"identity"]


@pytest.mark.parametrize(
    ("body", "read_as"),
    [(b'{"error":{"message":"no"}}', {"error": {"message": "no"}}), (b"<html>", "<html>"), (b"", ""), (b"[1]", [1])],
)
async def test_any_other_status_is_an_error_that_carries_the_body(
    transport: Transport, server: RawServer, body: bytes, read_as: object
) -> None:
    server.reply(body, status="429 Too Many Requests", retry_after="3")
    server.reply(PLAIN)
    one = transport()
    with pytest.raises(BadStatus) as refused:
        await one.exchange("POST", server.url, headers={}, body=CHAT)
    assert (refused.value.status_code, refused.value.body) == (429, read_as)
    assert refused.value.response.headers["retry-after"] == "3"
    assert await read(await one.exchange("POST", server.url, headers={}, body=CHAT)) == PLAIN
    assert server.connections == 1


@pytest.mark.parametrize("limit", [1000, 64 * 1024**2])
async def test_of_a_refusal_no_more_is_read_than_its_words(transport: Transport, server: RawServer, limit: int) -> None:
    server.reply(gzip.compress(b'{"error":"' + b"0" * 5_000_000 + b'"}'), status="500 Oh no", content_encoding="gzip")
    with pytest.raises(BadStatus) as refused:
        await transport(limit=limit).exchange("POST", server.url, headers={}, body=CHAT)
    assert (refused.value.status_code, refused.value.body) == (500, "")


async def test_a_large_request_arrives_as_it_was_given(transport: Transport, server: RawServer) -> None:
    body = b"".join(b"%07d " % number for number in range(200_000))
    server.reply(b"{}")
    await transport().exchange("POST", server.url, headers={}, body=body)
    [request] = server.requests
    assert f"content-length: {len(body)}".encode() in request.lower()
    assert b"transfer-encoding" not in request.lower()
    assert request.endswith(body)


async def test_a_redirect_is_an_error_too(transport: Transport, server: RawServer) -> None:
    server.reply(b"", status="307 Temporary Redirect", location=server.url)
    with pytest.raises(BadStatus):
        await transport().exchange("POST", server.url, headers={}, body=CHAT)
    assert len(server.requests) == 1
