"""Large bodies, read in a process of their own: the same as a small one's reading, value for value."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import psutil
import pytest

from llm.api import bodycheck
from llm.api.body import LARGE_BODY_BYTES, load_body
from llm.bodies import BodyBudget
from llm.dialects.strict_json import load_object
from llm.errors import InvalidRequest, Overloaded

LONG = 'na\u00efve \U0001f600 "quoted": {text}, \\ \n' * 10_000
BODIES: dict[str, Any] = {
    "one long text": {"messages": [{"role": "user", "content": LONG}]},
    "long texts in every place": {"a": LONG, "b": [LONG, [LONG, {"c": LONG}], ""], "d": {"e": {"f": LONG}}},
    "short texts": {"a": ["x" * 60] * 100_000},
    "a long key": {LONG: 1},
    "numbers": {"a": [1.0, -0.0, 9007199254740993, 1e300, 18446744073709551615, True, None], "b": LONG},
    "empty": {},
}


@pytest.mark.parametrize("name", list(BODIES))
async def test_what_is_read_apart_is_what_would_be_read_here(name: str) -> None:
    raw = orjson.dumps(BODIES[name])
    checked = await bodycheck.load_apart(raw)
    assert checked.body == load_object(raw)
    assert orjson.dumps(checked.body) == raw


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"a":1',
        b'{"a":NaN}',
        b'{"a":1,"a":2}',
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b'{"a":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"a":[' + b"1," * 600_000 + b"1]}",
        b'{"a":' + b"[]," * 300_000 + b"1}",
    ],
)
async def test_what_is_refused_is_refused_in_the_same_words(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as here:
        load_object(raw)
    with pytest.raises(InvalidRequest) as apart:
        await bodycheck.load_apart(raw)
    assert apart.value.message == here.value.message


async def test_only_a_large_body_gets_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    async def load_apart(raw: bytes) -> bodycheck.Checked:
        read.append(len(raw))
        return bodycheck.Checked(1, {})

    monkeypatch.setattr("llm.api.body.load_apart", load_apart)
    for size in (LARGE_BODY_BYTES, LARGE_BODY_BYTES + 1):
        await load_body(b"{}" + b" " * (size - 2), None)
    assert read == [LARGE_BODY_BYTES + 1]


async def test_what_is_made_of_a_body_counts_too() -> None:
    bodies = BodyBudget(max_bytes=10_000, max_bytes_per_key=10_000)
    lease = bodies.lease(1)
    with pytest.raises(Overloaded):
        await load_body(b'{"a":[' + b"1," * 100 + b"1]}", lease)
    lease.release()
    assert bodies.bytes_in_work == 0


async def test_a_reader_that_dies_is_our_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm.api.bodycheck.sys.executable", "/bin/false")
    with pytest.raises(Overloaded) as refused:
        await bodycheck.load_apart(b"{}" * 1_000_000)
    assert refused.value.http_status == 503


async def test_a_caller_who_leaves_ends_the_reader() -> None:
    raw = orjson.dumps({"a": LONG * 20})
    task = asyncio.ensure_future(bodycheck.load_apart(raw))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The next one gets its turn, and none is left.
    assert (await bodycheck.load_apart(b'{"a":1}')).body == {"a": 1}
    assert [child for child in psutil.Process().children() if "bodycheck" in " ".join(child.cmdline())] == []
