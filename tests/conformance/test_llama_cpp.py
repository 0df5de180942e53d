"""A real local model server (llama.cpp) behind `openai_compatible`, where it is installed.

pip install 'llama-cpp-python[server]'
LLAMA_MODEL=path/to/some.gguf pytest tests/conformance/test_llama_cpp.py
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import openai
import pytest

from llm.enums import UsageSource, UsageStatus
from tests.books import closed_usage
from tests.gateway_process import Gateway, free_port

_SHARED_MODEL = Path(__file__).resolve().parents[3] / "shared" / "local-llm" / "tiny.gguf"
_MODEL = Path(os.environ.get("LLAMA_MODEL") or _SHARED_MODEL)
_PYTHON = os.environ.get("LLAMA_PYTHON") or sys.executable
_START_SECONDS = 60

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        importlib.util.find_spec("llama_cpp") is None and "LLAMA_PYTHON" not in os.environ,
        reason="llama-cpp-python is not installed (LLAMA_PYTHON names a Python that has it)",
    ),
    pytest.mark.skipif(not _MODEL.is_file(), reason="no model: set LLAMA_MODEL"),
]


@pytest.fixture(scope="module")
def llama_url() -> Iterator[str]:
    port = free_port()
    command = [_PYTHON, "-m", "llama_cpp.server", "--model", str(_MODEL), "--model_alias", "llama3.2"]
    server = subprocess.Popen(
        [*command, "--port", str(port), "--n_ctx", "2048"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}/v1"
    try:
        _wait_for(url)
        yield url
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def client(start_gateway: Callable[..., Gateway], llama_url: str, api_key: str) -> Iterator[openai.OpenAI]:
    gateway = start_gateway(
        LLM_PROVIDER="openai_compatible",
        LLM_BASE_URL=llama_url,
        LLM_DEFAULT_MODEL="llama3.2",
        OPENAI_API_KEY="ollama",
        LLM_UNPRICED_MODELS="",
    )
    with openai.OpenAI(api_key=api_key, base_url=gateway.openai_base_url, max_retries=0) as client:
        yield client


def test_a_whole_reply_is_on_the_books_as_reported(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="llama3.2", messages=[{"role": "user", "content": "Tell me a story"}], max_tokens=20
    )
    [row] = closed_usage()
    assert reply.usage is not None
    assert (row.prompt_tokens, row.completion_tokens) == (reply.usage.prompt_tokens, reply.usage.completion_tokens)
    assert (row.status, row.usage_source, row.cost) == (UsageStatus.SETTLED, UsageSource.REPORTED, None)


def test_a_stream_without_usage_is_counted_and_says_so(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="llama3.2", messages=[{"role": "user", "content": "Tell me a story"}], max_tokens=20, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    [row] = closed_usage()
    assert text
    assert (row.status, row.usage_source) == (UsageStatus.ESTIMATED, UsageSource.ESTIMATED)
    assert row.prompt_tokens > 0
    assert row.completion_tokens > 0


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx2.get(f"{url}/models", timeout=2).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.2)
    raise AssertionError("llama.cpp did not start")
