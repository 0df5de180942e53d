"""Large JSON is parsed in a separate process, one per text: this is the gateway's side.

A parser holds Python's lock throughout, so a thread would stop every stream of this process; and a process returns its
memory by ending. Long texts come back separately and are decoded slice by slice; the small rest is parsed here.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson
import structlog

from llm.bodies.turns import take_turn
from llm.dialects.json_size import MAX_VALUES, count_if_cheap
from llm.dialects.json_text import Place
from llm.errors import InvalidRequest, Overloaded, UpstreamFailed

log = structlog.get_logger("llm.api")

_ROOT = Path(__file__).resolve().parent.parent.parent
# The reader needs none of the gateway's secrets.
_PASSED_ON = ("LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH")
_UNREADABLE = "This gateway can't read a body of this size at the moment. Try again shortly."
_SLICE_BYTES = 1024**2

# One at a time, since each takes a core and several times its text in memory. Replies don't wait for requests.
_threads = {kind: ThreadPoolExecutor(1, thread_name_prefix=f"llm-{kind}") for kind in ("request", "reply")}


class ReadRequest(NamedTuple):
    """values: upper bound on their number. body: as `load_object` returns it. members: the positions of its members'
    values.
    """

    values: int
    body: dict[str, Any]
    members: Mapping[str, Place]


class ReadReply(NamedTuple):
    """value: a large one without the parts that aren't read; {} if it isn't JSON, or too much of it.

    is_apart: it was large, and the positions are known; otherwise they are cheap to find. money_places: members that
    reveal the upstream's prices. cost_place: `usage_cost_place` of the text without those.
    """

    value: Any
    is_apart: bool
    money_places: Sequence[Place] = ()
    cost_place: Place | None = None


async def read_request_apart(raw: bytes, *, max_values: int = MAX_VALUES) -> ReadRequest:
    """Raises InvalidRequest or Overloaded."""
    try:
        head, body = await _read_apart("request", raw, max_values)
    except _ReaderDiedError:
        raise Overloaded(_UNREADABLE) from None
    if "refusal" in head:
        raise InvalidRequest(head["refusal"])
    members = {name: Place(*place) for name, place in head["members"].items()}
    return ReadRequest(head["values"], body, members)


async def read_reply(raw: bytes) -> ReadReply:
    """An upstream's whole reply; parsed in a separate process only if it is expensive. Raises UpstreamFailed."""
    await take_turn(len(raw))
    if count_if_cheap(raw) is not None:
        with contextlib.suppress(orjson.JSONDecodeError):
            return ReadReply(orjson.loads(raw), is_apart=False)
        return ReadReply({}, is_apart=False)
    try:
        head, value = await _read_apart("reply", raw)
    except _ReaderDiedError:
        raise UpstreamFailed("The provider's answer is too large to be read.", may_have_worked=True) from None
    place = head["cost_place"]
    return ReadReply(
        value,
        is_apart=True,
        money_places=[Place(*place) for place in head["money_places"]],
        cost_place=None if place is None else Place(*place),
    )


class _ReaderDiedError(Exception):
    pass


async def _read_apart(kind: str, raw: bytes, max_values: int = MAX_VALUES) -> tuple[dict[str, Any], Any]:
    reader = _Reader(kind, raw, max_values)
    try:
        return await asyncio.get_running_loop().run_in_executor(_threads[kind], reader.run)
    finally:
        reader.stop()


class _Reader:
    """The process of one text."""

    def __init__(self, kind: str, raw: bytes, max_values: int) -> None:
        self._kind = kind
        self._raw = raw
        self._max_values = max_values
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self) -> tuple[dict[str, Any], Any]:
        """Runs in a thread, which mostly waits without holding Python's lock."""
        if self._is_stopped:
            raise _ReaderDiedError
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        sizes = (str(len(self._raw)), str(self._max_values))
        command = [sys.executable, "-m", "llm.bodies.reader", self._kind, *sizes]
        with subprocess.Popen(  # noqa: S603  # our own module
            command, cwd=_ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            self._process = process
            if process.stdin is None or process.stdout is None:
                raise _ReaderDiedError
            try:
                return _ask(self._raw, process.stdin, process.stdout)
            except (EOFError, orjson.JSONDecodeError):
                process.kill()
                if not self._is_stopped:
                    log.warning("body.reader_died", bytes=len(self._raw), exit_code=process.wait())
                raise _ReaderDiedError from None

    def stop(self) -> None:
        """Called when the caller has left, or it is done."""
        self._is_stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()


def _ask(raw: bytes, sent: IO[bytes], answer: IO[bytes]) -> tuple[dict[str, Any], Any]:
    """Raises EOFError or JSONDecodeError if the other process has died."""
    with contextlib.suppress(BrokenPipeError):
        # The other side reads everything before it answers, so this doesn't block.
        sent.write(raw)
        sent.close()
    head = orjson.loads(answer.readline())
    value = orjson.loads(_read(answer, head["rest_bytes"]))
    for path, size in head["texts"]:
        *outer, last = path
        place = value
        for step in outer:
            place = place[step]
        place[last] = _decoded(_read(answer, size))
    return head, value


def _read(source: IO[bytes], size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _decoded(data: bytes) -> str:
    """Slice by slice, so that other threads get a turn in between."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(data)
    slices = [decoder.decode(view[start : start + _SLICE_BYTES]) for start in range(0, len(data), _SLICE_BYTES)]
    return "".join(slices)
