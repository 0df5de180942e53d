"""docs/callers.md and the README: their snippets, run as they stand against a gateway."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from llm.models import Usage
from tests.books import closed_usage
from tests.docs.pages import ROOT, blocks
from tests.gateway_process import Gateway

CALLERS, README = ROOT / "docs" / "callers.md", ROOT / "README.md"
ADDRESS = "http://127.0.0.1:8000"

pytestmark = pytest.mark.e2e


def test_the_python_snippets_work(gateway: Gateway, api_key: str, capsys: pytest.CaptureFixture[str]) -> None:
    shared: dict[str, Any] = {"__name__": "snippets"}
    for snippet in [*blocks(README, "python"), *blocks(CALLERS, "python")]:
        exec(snippet.replace(ADDRESS, gateway.url).replace("llm_...", api_key), shared)  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == ["You said: Hello", "You said: Where is Lisbon? 21"]
    assert printed[2:4] == ["You said: Count to ten.", "15 tokens"]
    assert printed[4:6] == ["You said: Hello", 'weather {"city":"sample"}']
    assert printed[6].startswith("400 invalid_request messages req_")
    assert len(printed) == 7
    closed_usage(5)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_lines_work(start_gateway: Callable[..., Gateway], api_key: str) -> None:
    gateway = start_gateway(LLM_PROVIDER="echo", LLM_UNPRICED_MODELS="flag")
    lines = [block for page in (README, CALLERS) for block in blocks(page, "sh") if block.startswith("curl")]
    replies = [
        subprocess.run(
            ["bash", "-c", line.replace(ADDRESS, gateway.url)],
            env={"LLM_KEY": api_key, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=True,
        ).stdout
        for line in lines
    ]
    assert b'"content":"Echo: Hello"' in replies[0]
    assert replies[1].startswith(b'{"reply":"Echo: Hello","model":"gpt-4o","usage":{"prompt_tokens":')
    assert len(replies) == Usage.objects.count() == 2
