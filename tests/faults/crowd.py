"""Many clients at once, each in a loop: what they were answered, by status."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

PATIENCE_S = 30.0


@dataclass(frozen=True)
class Request:
    """On a connection of its own, which ends with it."""

    path: str
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "GET"
    body: bytes = b""

    def to_bytes(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "host: localhost", "connection: close"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body:
            if "content-type" not in dict(self.headers):
                lines.append("content-type: application/json")
            lines.append(f"content-length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


async def ask(url: str, request: Request) -> tuple[int, bytes]:
    """Status and all that came; 0 where no answer came."""
    parts = urlsplit(url)
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            try:
                writer.write(request.to_bytes())
                answer = await reader.read(-1)
            finally:
                writer.close()
            return (int(answer.split(b" ", 2)[1]), answer) if answer else (0, b"")
    return 0, b""


async def hang_up(url: str, request: Request, *, after_s: float) -> None:
    """Ask, and be gone before the answer comes."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request.to_bytes())
    with suppress(TimeoutError):
        async with asyncio.timeout(after_s):
            await reader.read(1)
    writer.transport.abort()


async def crowd(
    url: str, requests: Sequence[Request], *, clients: int, ends: asyncio.Event
) -> Counter[tuple[str, int]]:
    """Answers by path and status, until `ends` is set. Each client begins with another of the requests."""
    told: Counter[tuple[str, int]] = Counter()

    async def loop(first: int) -> None:
        number = first
        while not ends.is_set():
            request = requests[number % len(requests)]
            status, _ = await ask(url, request)
            told[request.path, status] += 1
            number += 1

    await asyncio.gather(*(loop(number) for number in range(clients)))
    return told
