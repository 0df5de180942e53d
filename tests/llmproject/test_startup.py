"""A start that can't succeed ends with one sentence, not with a traceback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmproject.ports import port_problem
from tests.gateway_process import free_port
from tests.llmproject.commands import manage


@pytest.fixture
def used_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        yield port


@pytest.mark.processes
@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"LLM_PROVIDER": "anthropic"}, "LLM_PROVIDER=anthropic needs ANTHROPIC_API_KEY; set it in .env."),
        ({"SECRET_KEY": ""}, "SECRET_KEY is not set; put a long random string into .env."),
        ({"LLM_KEY_PEPPER": ""}, "LLM_KEY_PEPPER is not set; put a long random string into .env."),
        (
            {"LLM_TOTAL_TIMEOUT_SECONDS": "abc"},
            'LLM_TOTAL_TIMEOUT_SECONDS must be a number of seconds above 0, not "abc".',
        ),
    ],
    ids=["provider without key", "no secret key", "no pepper", "not a number"],
)
def test_a_wrong_setting_stops_the_server_with_one_sentence(
    tmp_path: Path, environment: dict[str, str], sentence: str
) -> None:
    ended = manage(tmp_path, "serve", WEB_PORT=str(free_port()), **environment)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"{sentence}\n")


@pytest.mark.processes
def test_a_used_port_stops_the_server_with_one_sentence(tmp_path: Path, used_port: int) -> None:
    ended = manage(tmp_path, "serve", WEB_PORT=str(used_port))
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"{used_port_sentence(used_port)}\n")


def used_port_sentence(port: int) -> str:
    return (
        f"Can't listen on 127.0.0.1:{port} (address already in use); stop what is using it, or set WEB_PORT or "
        "WEB_HOST."
    )


def test_a_used_port_is_a_problem(used_port: int) -> None:
    assert port_problem("127.0.0.1", used_port) == used_port_sentence(used_port)


def test_a_free_port_is_no_problem() -> None:
    assert port_problem("127.0.0.1", free_port()) == ""


def test_a_host_that_can_have_no_address_is_a_problem() -> None:
    assert port_problem("a..b", 8000).startswith("Can't listen on a..b:8000 (")
