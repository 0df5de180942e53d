"""The API's description and its page."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from drf_spectacular.generators import SchemaGenerator

from llmproject import schema, sessions

pytestmark = pytest.mark.django_db

_OF_A_RESPONSE = ("", "/cancel", "/input_items")
_OF_RESPONSES = ("", "/compact", "/input_tokens")


def test_the_description_names_every_endpoint_that_callers_use(client: Client) -> None:
    described = client.get("/api/v1/schema/", headers={"accept": "application/json"}).json()
    gateway = {path for path in described["paths"] if not path.startswith("/api/v1/")}
    responses = {
        f"/v1/responses{rest}" for rest in (*_OF_RESPONSES, *(f"/{{response_id}}{end}" for end in _OF_A_RESPONSE))
    }
    others = {
        *("/api/chat", "/v1/chat/completions", "/v1/completions", "/v1/embeddings"),
        *(
            "/v1/messages",
            "/v1/messages/count_tokens",
            "/v1/responses/input_tokens",
            "/v1/models",
            "/v1/models/{model}",
        ),
    }
    assert gateway == others | responses
    assert described["components"]["securitySchemes"]["apiKey"] == {"type": "http", "scheme": "bearer"}


def test_the_description_has_the_headers_that_calls_are_read_for(client: Client) -> None:
    described = client.get("/api/v1/schema/", headers={"accept": "application/json"}).json()
    headers = {
        path: {each["name"] for each in methods["post"].get("parameters", ()) if each["in"] == "header"}
        for path, methods in described["paths"].items()
        if "post" in methods and not path.startswith("/api/v1/") and not path.endswith("/cancel")
    }
    ours = {"Idempotency-Key", "x-llm-tags"}
    counting = {path for path in headers if path.endswith(("/count_tokens", "/input_tokens"))}
    for path, found in headers.items():
        dialects = {"openai-beta"}
        if path.startswith("/v1/messages"):
            dialects = {"anthropic-version", "anthropic-beta"}
        elif path == "/api/chat":
            dialects = set()
        assert found == (ours - {"Idempotency-Key"} if path in counting else ours) | dialects, path
    assert (len(headers), len(counting)) == (9, 2)


def test_the_page_loads_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/docs/").content.decode()
    assert "swagger-ui" in page
    assert "//" not in page.replace("http://testserver", "")


def test_the_root_leads_to_the_admin(client: Client) -> None:
    assert client.get("/").headers["location"] == "/admin/"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        *("/api/v1/schema/?format=%00", "/api/v1/schema/?format=nope", "/api/v1/schema/?format=%ff"),
        *("/api/v1", "/api/v1/", "/api/v1/%00", "/api/v1/%ff", "/api/v1/%ff/", "/api/v1/%0a", "/api/v1/a/b"),
        *("/api/v1/calls/%00", "/api/v1/calls/%00/", "/api/v1/schema/%00", "/api/v1/invoices/x", "/api/v1//calls/"),
        *("/api/v1//evil.example/", "/api/v1//evil.example"),
    ],
)
@pytest.mark.parametrize("method", ["get", "post", "options", "put"])
def test_what_the_management_api_does_not_serve_is_json(client: Client, method: str, path: str) -> None:
    client.raise_request_exception = False
    reply = getattr(client, method)(path)
    assert reply.status_code in (404, 405)
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json()) == ["detail"]


@pytest.mark.parametrize("method", ["post", "put", "delete", "options", "patch"])
def test_the_description_is_only_read(client: Client, method: str) -> None:
    reply = getattr(client, method)("/api/v1/schema/?format=yaml")
    assert (reply.status_code, reply.headers["content-type"]) == (405, "application/json")


@pytest.mark.parametrize("query", ["version=%0d%0aset-cookie:a", "version=%00", "version=%ff", "lang=%00", "lang=de"])
def test_nothing_that_is_asked_changes_the_description(client: Client, query: str) -> None:
    client.raise_request_exception = False
    reply, plain = client.get(f"/api/v1/schema/?{query}"), client.get("/api/v1/schema/")
    assert (reply.status_code, reply.content, reply.headers) == (200, plain.content, plain.headers)


def test_the_description_asks_no_database_and_is_made_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    client.cookies["sessionid"] = sessions._new_key()
    made: list[object] = []
    generate = SchemaGenerator.get_schema

    def spy(self: SchemaGenerator, *args: object, **kwargs: object) -> object:
        made.append(self)
        return generate(self, *args, **kwargs)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(SchemaGenerator, "get_schema", spy)
    schema._rendered.cache_clear()
    with CaptureQueriesContext(connection) as queries:
        assert [client.get("/api/v1/schema/?format=json").status_code for _ in range(3)] == [200] * 3
    assert (len(made), len(queries)) == (1, 0)


@pytest.mark.parametrize("path", ["/api/v1/calls", "/api/v1/invoices/1/pdf", "/api/v1/schema"])
def test_who_forgets_the_slash_is_sent_on(client: Client, path: str) -> None:
    reply = client.get(f"{path}?from=2026-11-01&x=%ff")
    assert (reply.status_code, reply.headers["location"], reply.content) == (301, f"{path}/?from=2026-11-01&x=%ff", b"")
    assert client.post(path).status_code == 404
