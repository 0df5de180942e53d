"""An upstream whose replies are large: `python -m benchmarks.large_upstream` prints its port.

It reads nothing of a request but the model, whose name says what is replied.
"""

from __future__ import annotations

import asyncio
import re
import sys

from benchmarks.body_shapes import SMALL_REPLY, replies

_MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
# Models stand at the beginning of the benchmark's bodies, or were put behind them.
_LOOKED_AT_BYTES = 64 * 1024


class LargeUpstream:
    def __init__(self) -> None:
        self._replies = replies()
        self._made = ""
        self._body = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                model = await self._model_of(reader, int(length[1]) if length else 0)
                status, kind, body = self._reply_of(model)
                lines = f"HTTP/1.1 {status} As asked", f"content-type: {kind}", f"content-length: {len(body)}"
                writer.write("\r\n".join((*lines, "", "")).encode())
                writer.write(body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _reply_of(self, model: str) -> tuple[int, str, bytes]:
        if model not in self._replies:
            return 200, "application/json", SMALL_REPLY
        if self._made != model:
            self._made = model
            self._body = self._replies[model][2]()
        status, kind, _ = self._replies[model]
        return status, kind, self._body

    async def _model_of(self, reader: asyncio.StreamReader, size: int) -> str:
        beginning = await reader.readexactly(min(size, _LOOKED_AT_BYTES))
        end = beginning
        left = size - len(beginning)
        while left:
            piece = await reader.read(min(left, 256 * 1024))
            if not piece:
                raise ConnectionError
            left -= len(piece)
            end = piece
        found = _MODEL.search(beginning) or _MODEL.search(end)
        return found[1].decode() if found else ""


async def main() -> None:
    server = await asyncio.start_server(LargeUpstream().serve, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
