"""docs/callers.md and the README: their snippets, run as they stand against a gateway."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import openai
import pytest

from llm.audit import verify
from llm.enums import LimitMetric, LimitPer
from llm.limits.changes import set_limit
from llm.models import ApiKey, Usage
from llm.prices.builtin import ensure_builtin_prices
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
    assert printed[6:9] == ["yes 1", "['answer', 'confidence']", "You said: What is in this picture?"]
    assert printed[9:12] == ["You said: Where is Lisbon?", "You said: Where is Porto? 5", "You said: Count to ten."]
    assert printed[12].startswith("400 invalid_request messages req_")
    assert printed[13:] == ["You said: Hello"]
    rows = closed_usage(13)
    [tagged] = [row for row in rows if row.tags]
    assert tagged.tags == {"team": "search", "project": "x"}
    assert [row.id for row in rows if row.end_user] == [tagged.id]


def test_the_snippets_for_providers_that_have_more_work(
    gateway: Gateway, api_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = {"client": openai.OpenAI(base_url=gateway.openai_base_url, api_key=api_key)}
    for snippet in blocks(CALLERS, "py"):
        exec(snippet, shared)  # noqa: S102
    said = ["2 2", "You said: And Porto?"]
    assert capsys.readouterr().out.splitlines() == said
    closed_usage(3)


def test_the_python_snippets_work_on_the_first_day_too(
    start_gateway: Callable[..., Gateway], api_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ensure_builtin_prices()
    gateway = start_gateway(LLM_PROVIDER="echo", LLM_UNPRICED_MODELS="flag")
    shared: dict[str, Any] = {"__name__": "snippets"}
    for snippet in [*blocks(README, "python"), *blocks(CALLERS, "python")]:
        exec(snippet.replace(ADDRESS, gateway.url).replace("llm_...", api_key), shared)  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "Echo: Hello"
    assert printed[5:9] == ['weather {"city": "echo"}', "echo 1", "['echo']", "Echo: What is in this picture?"]
    assert (printed[9], printed[11]) == ("Echo: Where is Lisbon?", "Echo: Count to ten.")
    assert printed[-1] == "Echo: Hello"
    assert {row.cost for row in closed_usage(13)} == {0}


def test_a_limit_of_cost_can_be_tried_with_echo(start_gateway: Callable[..., Gateway], api_key: str) -> None:
    ensure_builtin_prices()
    set_limit(ApiKey.objects.get().account, None, LimitMetric.COST, LimitPer.DAY, 1_000_000, None)
    gateway = start_gateway(LLM_PROVIDER="echo", LLM_UNPRICED_MODELS="")
    with openai.OpenAI(base_url=gateway.openai_base_url, api_key=api_key) as client:
        reply = client.chat.completions.create(model="echo", messages=[{"role": "user", "content": "Hello"}])
    assert reply.choices[0].message.content == "Echo: Hello"
    [row] = closed_usage()
    assert row.cost == 0
    assert not row.is_unpriced
    assert verify().sentences == []


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_lines_work(start_gateway: Callable[..., Gateway], api_key: str) -> None:
    gateway = start_gateway(LLM_PROVIDER="echo", LLM_UNPRICED_MODELS="flag")
    lines = [block for page in (README, CALLERS) for block in blocks(page, "sh") if block.startswith("curl")]
    replies = [
        subprocess.run(
            ["bash", "-c", line.replace(ADDRESS, gateway.url)],
            env={"GATEWAY_KEY": api_key, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            check=True,
        ).stdout
        for line in lines
    ]
    assert b'"content":"Echo: Hello"' in replies[0]
    assert replies[1].startswith(b'{"reply":"Echo: Hello","model":"gpt-4o","usage":{"prompt_tokens":')
    assert len(replies) == Usage.objects.count() == 2
