"""The way of a call is the one that docs/architecture.md shows."""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any, NamedTuple

import orjson
import pytest

from llm.api.handler import GatewayHandler
from llm.books.operations import CloseCall, Operation
from llm.books.writer.thread import BooksWriter
from llm.calls.runtime import Runtime, runtime
from llm.keys import create_key, get_or_create_account
from llm.providers.base import ProviderSettings
from llm.providers.echo import EchoProvider
from tests.books import closed_usage
from tests.docs.pages import ROOT, blocks
from tests.threads import to_thread

_MAX_FUNCTIONS = 14
_BODY = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}]})


class Step(NamedTuple):
    function: str
    file: str


@pytest.mark.parametrize(("package", "most"), [("llm", 18), ("billing", 16)])
def test_the_top_of_a_package_is_read_at_a_glance(package: str, most: int) -> None:
    """What more is added belongs to one of its folders."""
    files = [path.name for path in (ROOT / package).glob("*.py")]
    assert "__init__.py" in files
    assert len(files) <= most


def documented_way() -> list[Step]:
    """A file stands where it is entered, and holds for the lines that name none."""
    steps: list[Step] = []
    for line in blocks(ROOT / "docs" / "architecture.md", "text")[0].splitlines():
        function, *file, _ = re.split(r" {2,}", line)
        steps.append(Step(function, file[0] if file else steps[-1].file))
    return steps


def way_to(frame: FrameType | None, *, since: str) -> list[Step]:
    """The gateway's functions that led here, from the one named on."""
    steps: list[Step] = []
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(str(ROOT / "llm")):
            steps.insert(0, Step(code.co_qualname, code.co_filename.removeprefix(f"{ROOT}/")))
            if code.co_qualname == since:
                return steps
        frame = frame.f_back
    raise AssertionError(f"{since} has not led here")


@pytest.fixture
def way(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Filled by a call: from the view to its task, and from there to the writer that is given the closing row."""
    steps: list[Step] = []
    submit, start = BooksWriter.submit, Runtime.start

    def noted_submit(self: BooksWriter, *operations: Operation) -> asyncio.Future[Any]:
        if isinstance(operations[-1], CloseCall):
            steps.extend(way_to(sys._getframe(1), since="RequestTask.run"))
            steps.append(Step(submit.__qualname__, "llm/books/writer/thread.py"))
        return submit(self, *operations)

    def noted_start(self: Runtime, *arguments: Any, **named: Any) -> None:
        steps.extend(way_to(sys._getframe(1), since="AsyncAPIView.dispatch"))
        steps.append(Step(start.__qualname__, "llm/calls/runtime.py"))
        start(self, *arguments, **named)

    monkeypatch.setattr(BooksWriter, "submit", noted_submit)
    monkeypatch.setattr(Runtime, "start", noted_start)
    return steps


@pytest.mark.usefixtures("own_runtime")
async def test_a_call_goes_down_the_way_that_is_shown_and_enters_no_file_twice(way: list[Step]) -> None:
    runtime()._providers["echo"] = EchoProvider(ProviderSettings("echo"))
    secret = await to_thread(lambda: create_key(get_or_create_account("acme"), name="docs")[1])
    sent: list[Mapping[str, Any]] = []
    waits = asyncio.Event()

    async def receive() -> Mapping[str, Any]:
        if sent or waits.is_set():
            await asyncio.get_running_loop().create_future()
        waits.set()
        return {"type": "http.request", "body": _BODY}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {secret}".encode()), (b"content-type", b"application/json")],
    }
    await GatewayHandler()(scope, receive, send)

    assert sent[0]["status"] == 200
    assert len(await to_thread(closed_usage, 1)) == 1
    assert way == documented_way()
    assert len(way) <= _MAX_FUNCTIONS
    entered = [file for file, _ in itertools.groupby(step.file for step in way)]
    assert len(entered) == len(set(entered))
