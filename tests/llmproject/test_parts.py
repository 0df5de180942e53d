"""What we take from libraries beyond what they promise, and which of them may be missing."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import openai
import pytest
from granian import _signals
from granian._granian import WorkerSignal
from granian.server.mp import MPServer, WorkerProcess

from llm.enums import UsageStatus
from llmproject.server import has_not_ended
from tests.books import closed_usage
from tests.gateway_process import Gateway


def test_granian_has_what_stop_signals_replace() -> None:
    """Private names, so pyproject.toml pins a minor version: at the next one look at llmproject/stopsignals.py."""
    assert version("granian").split(".")[:2] == ["2", "8"]
    # It is called with the worker's loop, and what it returns is asked to call back, and set once.
    assert list(inspect.signature(_signals.set_loop_signals).parameters) == ["loop"]
    assert callable(WorkerSignal().set)
    assert callable(WorkerSignal().add_cb)
    # A worker looks it up only once it runs: what was put in its place by then is what it gets.
    lines = [line.strip() for line in inspect.getsource(MPServer._spawn_asgi_worker).splitlines()]
    assert "from granian._signals import set_loop_signals" in lines
    assert "shutdown_event = set_loop_signals(loop)" in lines
    # Which is after our application was loaded, and with it `begin_drain_at_stop_signal` called.
    wrapper = inspect.getsource(WorkerProcess.wrap_target)
    assert wrapper.index("callback = callback_loader()") < wrapper.index("return target(")


def test_granian_asks_what_we_answer_for_it_before_it_says_that_a_worker_refused_to_stop() -> None:
    """See `has_not_ended` of llmproject/server.py."""
    stop = inspect.getsource(MPServer._stop_workers)
    assert (
        stop.index("wrk.join(timeout)") < stop.rindex("if wrk.is_alive():") < stop.index("refused to gracefully stop")
    )
    assert "self.inner.join()" in inspect.getsource(WorkerProcess._watcher)


def test_a_worker_whose_end_another_thread_has_awaited_has_ended() -> None:
    reads, writes = os.pipe()
    worker: Any = SimpleNamespace(inner=SimpleNamespace(is_alive=lambda: True, sentinel=reads))
    assert has_not_ended(worker)
    os.close(writes)
    assert not has_not_ended(worker)
    os.close(reads)


@pytest.mark.e2e
def test_a_gateway_starts_and_serves_without_anthropic(
    start_gateway: Callable[..., Gateway], api_key: str, tmp_path: Path
) -> None:
    (tmp_path / "anthropic.py").write_text('raise ModuleNotFoundError("it is not installed", name="anthropic")\n')
    tried = subprocess.run([sys.executable, "-c", "import anthropic"], env={"PYTHONPATH": str(tmp_path)}, check=False)
    assert tried.returncode != 0
    gateway = start_gateway(PYTHONPATH=str(tmp_path), ANTHROPIC_API_KEY="")
    with openai.OpenAI(api_key=api_key, base_url=gateway.openai_base_url, max_retries=0) as client:
        reply = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hello there"}])

    assert reply.choices[0].message.content == "You said: hello there"
    [row] = closed_usage()
    assert row.status == UsageStatus.SETTLED
    assert httpx2.get(f"{gateway.url}/readyz").status_code == 200
    assert httpx2.get(f"{gateway.url}/docs/").status_code == 200
    assert "anthropic" not in gateway.log()
