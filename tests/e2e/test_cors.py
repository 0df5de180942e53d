"""Pages of other origins that call the gateway from a browser."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.callers import CHAT, Application, hello
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

NOTES = "app://notes"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


@pytest.fixture
def open_to_notes(application: Application, start_gateway: Callable[..., Gateway]) -> Application:
    return application.at(start_gateway(LLM_CORS_ORIGINS=f"https://app.example.com,{NOTES}"))


def ask(application: Application, origin: str, *, path: str = CHAT) -> tuple[int, dict[str, str]]:
    """What a browser asks without a key before the page's request."""
    reply = application.http.options(f"{application.gateway.url}{path}", headers={"origin": origin, **PREFLIGHT})
    return reply.status_code, {name: value for name, value in reply.headers.items() if "access-control" in name}


@pytest.mark.parametrize("origin", [NOTES, "https://app.example.com"])
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/api/chat"])
def test_a_browser_is_told_that_a_page_of_this_origin_may_call(
    open_to_notes: Application, origin: str, path: str
) -> None:
    status, headers = ask(open_to_notes, origin, path=path)
    assert status == 204
    assert headers == {
        "access-control-allow-origin": origin,
        "access-control-expose-headers": "*",
        "access-control-allow-methods": "GET, HEAD, POST, DELETE",
        "access-control-allow-headers": "authorization,content-type",
        "access-control-max-age": "600",
    }


@pytest.mark.parametrize("is_stream", [False, True])
def test_such_a_page_may_read_replies_and_refusals(open_to_notes: Application, is_stream: bool) -> None:
    good = open_to_notes.send("POST", CHAT, body=hello(stream=is_stream), headers={"origin": NOTES})
    bad = open_to_notes.using("llm_wrong").send("POST", CHAT, body=hello(), headers={"origin": NOTES})
    for reply, status in ((good, 200), (bad, 401)):
        assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (status, NOTES)
        assert reply.headers["vary"] == "origin"


@pytest.mark.parametrize("origin", ["https://evil.example.com", "https://app.example.com.evil.example", "null"])
def test_other_origins_are_told_nothing(open_to_notes: Application, application: Application, origin: str) -> None:
    for each in (open_to_notes, application):
        assert ask(each, origin) == (405, {})
        reply = each.send("POST", CHAT, body=hello(), headers={"origin": origin})
        assert [name for name in reply.headers if "access-control" in name] == []


def test_all_origins_can_be_allowed(application: Application, start_gateway: Callable[..., Gateway]) -> None:
    opened = application.at(start_gateway(LLM_CORS_ORIGINS="*"))
    status, headers = ask(opened, "null")
    assert (status, headers["access-control-allow-origin"]) == (204, "null")
