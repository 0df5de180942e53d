"""What no caller should send: a clear refusal in the dialect, never HTML, never a 500, nothing written or sent."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from llm.models import Usage
from tests.books import all_calls, closed_usage
from tests.e2e.callers import CHAT, Answer, Application, assert_nothing_happened, error_of, hello, native_error_of
from tests.e2e.test_unpriced import set_price
from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.wire]

MESSAGES = b'"messages": [{"role": "user", "content": "hello"}]'
MEGABYTE = 1024 * 1024


def with_member(member: bytes) -> bytes:
    return b'{"model": "gpt-4o", ' + MESSAGES + b", " + member + b"}"


UNREADABLE = {
    "empty": (b"", "empty"),
    "blank": (b" \n ", "empty"),
    "no JSON": (b"model=gpt-4o", "not valid JSON"),
    "half": (hello()[:-2], "not valid JSON"),
    "more behind it": (hello() + b"{}", "not valid JSON"),
    "NaN": (with_member(b'"temperature": NaN'), "NaN"),
    "Infinity": (with_member(b'"temperature": -Infinity'), "NaN or Infinity"),
    "too large a number": (with_member(b'"temperature": 1e999'), "number that is too large"),
    "lone surrogate": (with_member(b'"user": "\\ud800"'), "surrogate"),
    "raw NUL": (with_member(b'"user": "a\0b"'), "not valid JSON"),
    "invalid UTF-8": (with_member(b'"user": "\xff\xfe"'), "UTF-8"),
    "UTF-16": (hello().decode().encode("utf-16"), "UTF-8"),
    "duplicate key": (with_member(b'"n": 1, "n": 64'), 'repeats the key "n"'),
    "escaped duplicate key": (with_member(b'"n": 1, "\\u006e": 64'), 'repeats the key "n"'),
    "nested duplicate key": (with_member(b'"metadata": {"a": 1, "a": 2}'), 'repeats the key "a"'),
    "nested 200 deep": (with_member(b'"metadata": ' + b"[" * 200 + b"]" * 200), "deeper than 128"),
    "nested 40,000 deep": (with_member(b'"metadata": ' + b"[" * 40_000 + b"]" * 40_000), "deeper than 128"),
    "millions of brackets": (with_member(b'"metadata": [' + b"[]," * 1_000_000 + b"0]"), "opening brackets"),
    "array": (b"[" + hello() + b"]", "must be a JSON object"),
    "text": (b'"hello"', "must be a JSON object"),
    "null": (b"null", "must be a JSON object"),
}

MISSHAPEN = {
    "no messages": (b'{"model": "gpt-4o"}', "messages"),
    "empty messages": (b'{"model": "gpt-4o", "messages": []}', "messages"),
    "messages are text": (b'{"model": "gpt-4o", "messages": "hello"}', "messages"),
    "messages are null": (b'{"model": "gpt-4o", "messages": null}', "messages"),
    "a message is text": (b'{"model": "gpt-4o", "messages": ["hello"]}', "messages[0]"),
    "a message without role": (b'{"model": "gpt-4o", "messages": [{"content": "hello"}]}', "messages[0].role"),
    "no model": (b"{" + MESSAGES + b"}", "model"),
    "empty model": (b'{"model": "", ' + MESSAGES + b"}", "model"),
    "model is a number": (b'{"model": 4, ' + MESSAGES + b"}", "model"),
    "model is a list": (b'{"model": ["gpt-4o"], ' + MESSAGES + b"}", "model"),
    "model is too long": (b'{"model": "' + b"x" * 201 + b'", ' + MESSAGES + b"}", "model"),
    "model with a line end": (b'{"model": "gpt\\n4o", ' + MESSAGES + b"}", "model"),
    "stream is text": (with_member(b'"stream": "true"'), "stream"),
    "stream is a number": (with_member(b'"stream": 1'), "stream"),
    "stream_options are text": (with_member(b'"stream": true, "stream_options": "all"'), "stream_options"),
    "n is 0": (with_member(b'"n": 0'), "n"),
    "n is negative": (with_member(b'"n": -1'), "n"),
    "n is 129": (with_member(b'"n": 129'), "n"),
    "n is a fraction": (with_member(b'"n": 1.5'), "n"),
    "n is true": (with_member(b'"n": true'), "n"),
    "n is beyond 64 bits": (with_member(b'"n": 100000000000000000000'), "n"),
}


@pytest.mark.parametrize("case", list(UNREADABLE))
def test_a_body_that_cannot_be_read_is_refused(application: Application, upstream: FakeUpstream, case: str) -> None:
    body, reason = UNREADABLE[case]
    reply = application.send("POST", CHAT, body=body)
    error = error_of(reply)
    assert (reply.status_code, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_request")
    assert reason in error["message"]
    assert_nothing_happened(upstream)


@pytest.mark.parametrize("case", list(MISSHAPEN))
def test_a_body_of_the_wrong_shape_is_refused_with_the_place(
    application: Application, upstream: FakeUpstream, case: str
) -> None:
    body, param = MISSHAPEN[case]
    reply = application.send("POST", CHAT, body=body)
    error = error_of(reply)
    assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert_nothing_happened(upstream)


@pytest.mark.parametrize("case", ["empty", "array", "duplicate key", "NaN", "no messages", "n is 0", "no model"])
def test_the_native_endpoint_refuses_in_its_own_words(
    application: Application, upstream: FakeUpstream, case: str
) -> None:
    body, _ = {**UNREADABLE, **MISSHAPEN}[case]
    reply = application.send("POST", "/api/chat", body=body)
    assert (reply.status_code, native_error_of(reply)["code"]) == (400, "invalid_request")
    assert_nothing_happened(upstream)


# --- What is none of our business -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": "a\0b"}],
        [{"role": "narrator", "content": "hello there"}],
        [{"role": "user", "content": None, "\0": 1}],
    ],
    ids=["NUL", "unknown role", "NUL in a name"],
)
def test_what_the_books_do_not_depend_on_goes_up_as_it_was_sent(
    application: Application, upstream: FakeUpstream, messages: list[dict[str, Any]]
) -> None:
    body = hello(messages=messages)
    assert application.send("POST", CHAT, body=body).status_code == 200
    assert upstream.ledger.entries()[0].raw == body
    assert closed_usage()[0].status == "settled"


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
def test_a_byte_order_mark_is_taken_off(application: Application, path: str) -> None:
    assert application.send("POST", path, body=b"\xef\xbb\xbf" + hello()).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "deflate", "GZIP", "br, gzip"])
def test_a_compressed_body_is_refused_by_its_encoding(
    application: Application, upstream: FakeUpstream, encoding: str
) -> None:
    reply = application.send("POST", CHAT, body=gzip.compress(hello()), headers={"content-encoding": encoding})
    error = error_of(reply)
    assert (reply.status_code, error["code"]) == (415, "unsupported_content_encoding")
    assert error["message"] == f"The request body is compressed (“{encoding}”). Send it uncompressed."
    assert_nothing_happened(upstream)
    assert application.send("POST", CHAT, body=hello(), headers={"content-encoding": "identity"}).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/gpt-4o"])
def test_head_is_get_without_its_body(application: Application, path: str) -> None:
    set_price(input="1", output="1")
    head, get = application.send("HEAD", path), application.send("GET", path)
    assert (head.status_code, head.content) == (200, b"") == (get.status_code, b"")
    assert get.content
    assert head.headers["content-type"] == get.headers["content-type"]


# --- Size and time ----------------------------------------------------------------------------------------------------


def head(application: Application, *lines: str) -> bytes:
    sent = ("host: gateway", "connection: close", f"authorization: Bearer {application.secret}", *lines)
    return "\r\n".join((f"POST {CHAT} HTTP/1.1", *sent, "", "")).encode()


def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(
    application: Application, upstream: FakeUpstream
) -> None:
    reply = application.send_bytes(head(application, f"content-length: {33 * MEGABYTE}"))
    assert (reply.status_code, error_of(reply)["code"]) == (413, "request_too_large")
    assert_nothing_happened(upstream)


def test_a_caller_who_sends_too_much_gets_the_refusal(application: Application, upstream: FakeUpstream) -> None:
    reply = application.send("POST", CHAT, body=b" " * (33 * MEGABYTE))
    assert (reply.status_code, error_of(reply)["code"]) == (413, "request_too_large")
    assert_nothing_happened(upstream)


def test_a_caller_who_sends_too_much_without_saying_so_gets_the_refusal(
    application: Application, upstream: FakeUpstream
) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(33):
            yield b" " * MEGABYTE

    headers = {"authorization": f"Bearer {application.secret}"}
    reply = application.http.post(f"{application.gateway.url}{CHAT}", content=pieces(), headers=headers)
    assert (reply.status_code, error_of(reply)["code"]) == (413, "request_too_large")
    assert_nothing_happened(upstream)


def test_a_body_of_just_the_limit_is_read(application: Application, upstream: FakeUpstream) -> None:
    body = hello()
    reply = application.send("POST", CHAT, body=body + b" " * (32 * MEGABYTE - len(body)))
    assert reply.status_code == 200
    assert len(upstream.ledger.entries()) == Usage.objects.count() == 1


def test_the_key_is_checked_before_the_body(application: Application, upstream: FakeUpstream) -> None:
    reply = application.using("llm_wrong").send_bytes(
        head(application.using("llm_wrong"), f"content-length: {33 * MEGABYTE}")
    )
    assert (reply.status_code, error_of(reply)["code"]) == (401, "invalid_api_key")
    assert_nothing_happened(upstream)


def test_a_body_that_does_not_come_in_time_is_refused(
    application: Application, impatient: Gateway, upstream: FakeUpstream
) -> None:
    reply = application.at(impatient).send_bytes(head(application, "content-length: 100"), b'{"model": ')
    assert (reply.status_code, error_of(reply)["code"]) == (408, "request_timeout")
    assert_nothing_happened(upstream)


def test_a_caller_who_leaves_within_the_body_leaves_no_trace(
    application: Application, gateway: Gateway, upstream: FakeUpstream
) -> None:
    with application.connect() as connection:
        connection.sendall(head(application, "content-length: 100") + b'{"model": ')
    assert application.send("GET", "/v1/models").status_code == 200
    assert_nothing_happened(upstream)
    assert "Traceback" not in gateway.log()


# --- Paths and methods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("/v1", "/v1/", "/v1/chat", "/v1/chat/completions/", "/v1/nope", "/v1//models", "/v1/models/"),
        *("/v1/%00", "/v1/%", "/v1/%ff%fe", "/v1/../admin/", "/v1/chat/completions%20", "/v1/chat/completions%0a"),
        *("/v1/" + "x" * 10_000, "/v1/é"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_a_404_in_the_dialect(
    application: Application, upstream: FakeUpstream, method: str, path: str
) -> None:
    request_line = f"{method} {path} HTTP/1.1\r\n".encode()
    reply = application.send_bytes(request_line + b"host: gateway\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
    assert (reply.status_code, error_of(reply)["code"]) == (404, "not_found")
    assert len(reply.content) < 1000
    assert_nothing_happened(upstream)


@pytest.mark.parametrize("path", ["/api/chat/", "/api/chatter", "/api/chat/%00"])
def test_an_unknown_native_path_is_a_404_in_the_dialect(
    application: Application, upstream: FakeUpstream, path: str
) -> None:
    reply = application.send("POST", path, body=hello())
    assert (reply.status_code, native_error_of(reply)["code"]) == (404, "not_found")
    assert_nothing_happened(upstream)


SERVED = (
    "This gateway serves POST /v1/chat/completions, POST /v1/responses, POST /v1/responses/input_tokens,"
    " POST /v1/responses/compact, POST /v1/completions, POST /v1/embeddings,"
    " POST /v1/messages, POST /v1/messages/count_tokens, GET /v1/models, POST /api/chat."
)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/v1/moderations", ""),
        ("/v1", ""),
        ("/chat/completions", " An OpenAI SDK's base URL ends in /v1."),
    ],
)
def test_a_path_that_is_not_served_says_which_are(application: Application, path: str, hint: str) -> None:
    reply = application.send("POST", path, body=b"{}")
    assert (reply.status_code, error_of(reply)["code"]) == (404, "not_found")
    assert error_of(reply)["message"] == f"Nothing was found at {path}. {SERVED}{hint}"


@pytest.mark.parametrize("name", ["unknown", "a%00b", "%ff%fe", "a%2fb", "a/b", "%C3%A9", "x" * 5000, "gpt-4o%20"])
def test_an_unknown_model_is_a_404_in_the_dialect(application: Application, upstream: FakeUpstream, name: str) -> None:
    reply = application.send_bytes(
        f"GET /v1/models/{name} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n"
        f"authorization: Bearer {application.secret}\r\n\r\n".encode()
    )
    error = error_of(reply)
    assert (reply.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert len(reply.content) < 1000
    assert_nothing_happened(upstream)


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "BREW"])
@pytest.mark.parametrize(("path", "allowed"), [(CHAT, "POST"), ("/v1/models", "GET, HEAD"), ("/api/chat", "POST")])
def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    application: Application, upstream: FakeUpstream, path: str, allowed: str, method: str
) -> None:
    reply = application.send_bytes(f"{method} {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n".encode())
    assert (reply.status_code, reply.headers["allow"]) == (405, allowed)
    error = native_error_of(reply) if path == "/api/chat" else error_of(reply)
    assert error["code"] == "method_not_allowed"
    assert_nothing_happened(upstream)


# --- What is hardly HTTP ----------------------------------------------------------------------------------------------


def with_header(application: Application, line: bytes) -> bytes:
    key = f"authorization: Bearer {application.secret}\r\n".encode()
    return b"GET /v1/models HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n" + key + line + b"\r\n\r\n"


@pytest.mark.parametrize(
    "line", [b"x-long: " + b"a" * 100_000, b"x-bytes: \xff\xfe", b"cookie: \xff\xfe", b"content-type: \xff\xfe"]
)
def test_strange_headers_do_no_harm(application: Application, line: bytes) -> None:
    assert application.send_bytes(with_header(application, line)).status_code == 200


@pytest.mark.parametrize("line", [b"x-long: " + b"a" * 1_000_000, b"\r\n".join([b"x-many: a"] * 1000)])
def test_headers_beyond_all_measure_are_refused_by_the_server(application: Application, line: bytes) -> None:
    assert application.send_bytes(with_header(application, line)).status_code == 431


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/models/\0 HTTP/1.1\r\nhost: gateway\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
    ],
    ids=["NUL in the path", "negative length", "two lengths", "TLS"],
)
def test_what_is_no_http_is_refused_by_the_server(
    application: Application, upstream: FakeUpstream, sent: bytes
) -> None:
    reply: Answer = application.send_bytes(sent)
    assert (reply.status_code, reply.content) == (400, b"")
    assert_nothing_happened(upstream)


def test_nothing_of_all_this_was_an_error_of_ours(application: Application, gateway: Gateway) -> None:
    for body, _ in UNREADABLE.values():
        application.send("POST", CHAT, body=body)
    assert "Traceback" not in gateway.log()
    assert '"level":"error"' not in gateway.log()


def test_a_base_url_without_its_v1_is_told_so_in_the_sdks_own_words(gateway: Gateway, api_key: str) -> None:
    client = openai.OpenAI(api_key=api_key, base_url=gateway.url, max_retries=0)
    with client, pytest.raises(openai.NotFoundError, match="ends in /v1"):
        client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hello"}])
    assert all_calls() == []
