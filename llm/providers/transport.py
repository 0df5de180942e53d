"""The only way out: an httpx2 transport on aiohttp, used by both official SDKs.

It guarantees that bodies are bounded and reach the reader decompressed, no cookie is ever kept or sent, nothing is read
from the environment, no redirect is followed, and a failure says whether any byte can have reached the upstream.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
import httpx2
import orjson

from llm.dialects.json_size import count_if_cheap
from llm.providers.base import ProviderSettings

_READ_BYTES = 64 * 1024
# Chunk of a large request: passed whole, it would be copied on the event loop while nothing else runs.
_SLICE_BYTES = 256 * 1024
# For a refusal, which is a few sentences; the rest is ignored.
_MAX_REFUSAL_BYTES = 256 * 1024
_BEFORE_SENDING = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)


class NeverSent(httpx2.ConnectError):
    """No connection was made: the upstream certainly did nothing."""


class ReplyTooLarge(httpx2.ReadError):
    """The reply exceeded the size that we hold."""


class BadStatus(Exception):
    """An answer other than 2xx. body: its JSON, or its text if it isn't JSON, as in the SDKs' errors."""

    def __init__(self, answer: UpstreamResponse, body: object) -> None:
        super().__init__(answer.status)
        self.status_code = answer.status
        self.response = answer
        self.body = body


@dataclass(frozen=True, slots=True)
class UpstreamResponse:
    """The headers of an upstream's answer, with its body still unread."""

    status: int
    headers: Mapping[str, str]
    body: httpx2.AsyncByteStream


def client_on(transport: UpstreamTransport) -> httpx2.AsyncClient:
    """The HTTP client for an SDK."""
    return httpx2.AsyncClient(transport=transport, follow_redirects=False, trust_env=False)


class UpstreamTransport(httpx2.AsyncBaseTransport):
    def __init__(self, settings: ProviderSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        reply = await self._send(request.method, str(request.url), headers=request.headers, body=request.content)
        return httpx2.Response(reply.status, headers=_visible_headers(reply), stream=self._body(reply), request=request)

    async def exchange(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes) -> UpstreamResponse:
        """For bytes that need no SDK: saves the cost of building its requests and responses.

        Raises BadStatus, or httpx2.TransportError.
        """
        reply = await self._send(method, url, headers=headers, body=body)
        answer = UpstreamResponse(reply.status, reply.headers, self._body(reply))
        if 200 <= reply.status < 300:
            return answer
        try:
            body = b"".join([piece async for piece in answer.body])
            document = parse_json(body)
            raise BadStatus(answer, body.decode(errors="replace") if document is None else document)
        finally:
            await answer.body.aclose()

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def _send(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        try:
            return await self._open_session().request(
                method,
                url,
                headers={**headers, "accept-encoding": "identity", "content-length": str(len(body))},
                data=_in_slices(body) if len(body) > _SLICE_BYTES else body or None,
                allow_redirects=False,
                auto_decompress=False,
            )
        except aiohttp.ClientError as error:
            raise _translated(error) from error
        except TimeoutError as error:
            raise httpx2.ReadTimeout("no answer from the upstream in time") from error

    def _body(self, reply: aiohttp.ClientResponse) -> _Body:
        is_refusal = not 200 <= reply.status < 300
        limit = self._settings.max_reply_bytes
        return _Body(reply, limit=min(limit, _MAX_REFUSAL_BYTES) if is_refusal else limit, cuts=is_refusal)

    def _open_session(self) -> aiohttp.ClientSession:
        """Opened by the first request, since it belongs to the running event loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._settings.max_connections, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    # Includes name lookup and waiting for a free connection: until then nothing was sent.
                    connect=self._settings.connect_timeout_s,
                    sock_connect=self._settings.connect_timeout_s,
                    sock_read=self._settings.idle_timeout_s,
                ),
                trust_env=False,
                read_bufsize=_READ_BYTES,
            )
        return self._session


class _Body(httpx2.AsyncByteStream):
    """A reply's bytes, decompressed, at most `limit` of them. cuts: ignore the rest; otherwise more is an error."""

    def __init__(self, reply: aiohttp.ClientResponse, *, limit: int, cuts: bool) -> None:
        self._reply = reply
        self._limit = limit
        self._cuts = cuts
        self._inflater = _inflater(reply)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        try:
            async for data in self._reply.content.iter_any():
                plain = self._inflate(data, room=self._limit - received)
                received += len(plain)
                if received > self._limit:
                    if self._cuts:
                        return
                    raise ReplyTooLarge("the upstream's reply is too large")
                yield plain
        except aiohttp.ClientError as error:
            raise _translated(error) from error
        except TimeoutError as error:
            raise httpx2.ReadTimeout("the upstream stopped sending") from error
        except zlib.error as error:
            raise httpx2.ReadError("the upstream's compressed reply is corrupt") from error

    async def aclose(self) -> None:
        """A reply that wasn't read to its end closes its connection; a complete one returns it to the pool."""
        if self._reply.content.at_eof():
            self._reply.release()
        else:
            self._reply.close()

    def _inflate(self, data: bytes, *, room: int) -> bytes:
        """At most one byte more than there is room for: enough to detect a bomb, without holding it."""
        return data if self._inflater is None else self._inflater.decompress(data, room + 1)


async def _in_slices(body: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(body), _SLICE_BYTES):
        yield view[start : start + _SLICE_BYTES]


def _inflater(reply: aiohttp.ClientResponse) -> zlib._Decompress | None:
    """For an upstream that compresses although we asked it not to."""
    encoding = reply.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return None
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    reply.close()
    raise httpx2.ReadError("the upstream used a compression that was not requested")


def _visible_headers(reply: aiohttp.ClientResponse) -> list[tuple[bytes, bytes]]:
    hidden = (b"content-encoding", b"content-length", b"transfer-encoding", b"set-cookie")
    return [(name, value) for name, value in reply.raw_headers if name.lower() not in hidden]


def parse_json(body: bytes) -> object:
    try:
        return orjson.loads(body) if count_if_cheap(body) is not None else None
    except orjson.JSONDecodeError:
        return None


def _translated(error: aiohttp.ClientError) -> httpx2.TransportError:
    """The SDKs' own mapping doesn't distinguish “disconnected after the body was sent” and “refused”; this one does."""
    if isinstance(error, _BEFORE_SENDING):
        return NeverSent("no connection to the upstream")
    if isinstance(error, aiohttp.ServerTimeoutError):
        return httpx2.ReadTimeout("no answer from the upstream in time")
    return httpx2.ReadError("the connection to the upstream broke")
