"""Large bodies are checked and read in a process of their own, which ends with it.

A parser holds Python's lock for as long as it takes, so a thread would stop every stream of this process; and what a
process has taken in memory it gives back by ending. Long texts come back by themselves and are decoded slice by slice;
what is left of the body is small, and the gateway reads that. See docs/decisions/0021.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson
import structlog

from llm.dialects.json_size import count_values
from llm.dialects.strict_json import load_counted
from llm.errors import InvalidRequest, Overloaded

log = structlog.get_logger("llm.api")

_ROOT = Path(__file__).resolve().parent.parent.parent
# 32 MB take half a second, most of it for texts full of escapes.
_MAX_CPU_SECONDS = 20
# Of a body's size: its bytes, its objects, and both written once more; beside what Python itself takes.
_MEMORY_PER_BYTE = 20
_OWN_MEMORY = 512 * 1024**2
# The gateway's secrets are none of the checker's.
_PASSED_ON = ("LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH")
_UNREADABLE = "This gateway can't read a body of this size at the moment. Try again shortly."

_LONG_TEXT_CHARACTERS = 64 * 1024
_SLICE_BYTES = 1024**2

# One at a time: each takes a core and several times its body in memory.
_threads = ThreadPoolExecutor(1, thread_name_prefix="llm-bodies")


class Checked(NamedTuple):
    """values: as `count_values` has them. body: as `load_object` has it."""

    values: int
    body: dict[str, Any]


async def load_apart(raw: bytes) -> Checked:
    """Raises InvalidRequest or Overloaded."""
    check = _Check(raw)
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads, check.run)
    finally:
        check.stop()


class _Check:
    """One body's process."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self) -> Checked:
        """In a thread, which mostly waits without Python's lock."""
        if self._is_stopped:
            raise Overloaded(_UNREADABLE)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        command = [sys.executable, "-m", "llm.api.bodycheck", str(len(self._raw))]
        with subprocess.Popen(  # noqa: S603  # our own module
            command, cwd=_ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            self._process = process
            if process.stdin is None or process.stdout is None:
                raise Overloaded(_UNREADABLE)
            try:
                return _ask(self._raw, process.stdin, process.stdout)
            except (EOFError, orjson.JSONDecodeError):
                process.kill()
                log.warning("a body could not be checked", bytes=len(self._raw), exit_code=process.wait())
                raise Overloaded(_UNREADABLE) from None

    def stop(self) -> None:
        """Its caller has left, or it is done."""
        self._is_stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()


def _ask(raw: bytes, sent: IO[bytes], answer: IO[bytes]) -> Checked:
    """Raises InvalidRequest, and EOFError or JSONDecodeError where the other side has died."""
    with contextlib.suppress(BrokenPipeError):
        # It is taken as fast as the other side reads, which answers only after it has read all.
        sent.write(raw)
        sent.close()
    verdict = orjson.loads(answer.readline())
    if "refusal" in verdict:
        raise InvalidRequest(verdict["refusal"])
    body = orjson.loads(_read(answer, verdict["rest_bytes"]))
    for path, size in verdict["texts"]:
        *outer, last = path
        place = body
        for step in outer:
            place = place[step]
        place[last] = _decoded(_read(answer, size))
    return Checked(verdict["values"], body)


def _read(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _decoded(data: bytes) -> str:
    """Slice by slice: between two of them other threads get their turn."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    slices = [decoder.decode(view[start : start + _SLICE_BYTES]) for start in range(0, len(data), _SLICE_BYTES)]
    return "".join(slices)


# --- The other side ---------------------------------------------------------------------------------------------------


def main() -> None:
    """A body on standard input; on standard output a line that says what follows, the rest, and the long texts."""
    size = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_SECONDS, _MAX_CPU_SECONDS))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        memory = _OWN_MEMORY + size * _MEMORY_PER_BYTE
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    raw = sys.stdin.buffer.read()
    try:
        values = count_values(raw)
        body = load_counted(raw)
    except InvalidRequest as error:
        _write(orjson.dumps({"refusal": error.message}), b"\n")
    else:
        texts = list(_take_long_texts(body))
        rest = orjson.dumps(body)
        sizes = [(path, len(text)) for path, text in texts]
        _write(orjson.dumps({"values": values, "rest_bytes": len(rest), "texts": sizes}), b"\n", rest)
        _write(*(text for _, text in texts))
    sys.stdout.buffer.flush()
    # Without taking apart what has been built: the system is quicker.
    os._exit(0)


def _take_long_texts(body: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], bytes]]:
    """Each with its path; what stays in its place is empty."""
    level: list[tuple[tuple[str | int, ...], Any]] = [((), body)]
    while level:
        path, node = level.pop()
        for step, value in list(node.items() if type(node) is dict else enumerate(node)):
            if type(value) is str and len(value) > _LONG_TEXT_CHARACTERS:
                node[step] = ""
                yield (*path, step), value.encode()
            elif type(value) is dict or type(value) is list:
                level.append(((*path, step), value))


def _write(*pieces: bytes) -> None:
    for piece in pieces:
        sys.stdout.buffer.write(piece)


if __name__ == "__main__":
    main()
