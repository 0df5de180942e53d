"""What strangers send to Django's paths: bounded, answered in the path's form, and never an error in the log."""

from __future__ import annotations

import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx2
import orjson
import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.e2e.callers import Answer, Application, error_of, read_answer
from tests.gateway_process import Gateway

pytestmark = pytest.mark.e2e

KB = 1024
ANONYMOUS_BYTES = 64 * KB
PAGES = ("/admin/login/", "/admin/", "/docs/")
API = ("/api/v1/exports/", "/api/v1/schema/", "/api/v1/nope/")
UNSERVED = ("/no/such/page", "/favicon.ico", "//v1/chat/completions", "/apiv1", "/administrator", "*")


def head(path: str, *lines: str, method: str = "POST", host: str = "localhost") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"host: {host}", *lines, "", "")).encode()


def message_of(path: str, reply: Answer | httpx2.Response) -> str:
    """Of a refusal, which must have the form that its path has."""
    if path.startswith(("/admin", "/docs")):
        assert reply.headers["content-type"].startswith("text/html")
        return reply.text
    if path.startswith("/api/v1"):
        assert reply.headers["content-type"] == "application/json"
        [(name, detail)] = reply.json().items()
        assert name == "detail"
        return str(detail)
    return str(error_of(reply)["message"])


@pytest.mark.parametrize("path", [*PAGES, *API])
def test_a_stranger_who_announces_more_than_64_kb_is_refused_before_it_is_sent(
    application: Application, path: str
) -> None:
    reply = application.send_bytes(head(path, f"content-length: {ANONYMOUS_BYTES + 1}"))
    assert reply.status_code == 413
    assert "The request body is larger than 64 KB." in message_of(path, reply)


@pytest.mark.parametrize("path", [*PAGES, *API])
def test_a_stranger_who_sends_more_than_64_kb_in_chunks_is_refused(application: Application, path: str) -> None:
    chunk = b"8000\r\n" + b"a" * 32 * KB + b"\r\n"
    with application.connect() as connection:
        connection.sendall(head(path, "transfer-encoding: chunked") + chunk * 2 + b"1\r\na\r\n")
        reply = read_answer(connection)
    assert reply.status_code == 413
    assert "larger than 64 KB" in message_of(path, reply)


@pytest.mark.wire
@pytest.mark.slow
def test_a_stranger_who_drips_has_ten_seconds_and_one_who_is_silent_thirty(application: Application) -> None:
    """In wide bounds: the machine may be busy. All wait at the same time."""
    request = head("/admin/login/", "content-length: 1000")
    with ThreadPoolExecutor(3) as pool, closing(application.connect()) as idle, closing(application.connect()) as half:
        half.sendall(request[:30])
        dripping = pool.submit(drip, application, request)
        silent = [pool.submit(seconds_until_closed, each) for each in (idle, half)]
        answer, seconds = dripping.result()
        silences = [each.result() for each in silent]
    assert (answer.status_code, 9 < seconds < 20) == (408, True), seconds
    assert "did not arrive within 10 seconds" in message_of("/admin/login/", answer)
    assert all(25 < each < 45 for each in silences), silences


def drip(application: Application, request: bytes) -> tuple[Answer, float]:
    """One byte a second of a body, until there is an answer; how long that took."""
    started = time.monotonic()
    with application.connect() as connection:
        connection.sendall(request)
        while not select.select([connection], [], [], 1.0)[0]:
            connection.sendall(b"a")
        return read_answer(connection), time.monotonic() - started


def seconds_until_closed(connection: socket.socket) -> float:
    started = time.monotonic()
    connection.settimeout(60)
    while connection.recv(65_536):
        pass
    return time.monotonic() - started


@pytest.mark.parametrize("path", UNSERVED)
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_an_unserved_path_is_a_404_in_json_whatever_the_host_and_body(
    application: Application, path: str, host: str
) -> None:
    method = "OPTIONS" if path == "*" else "POST"
    reply = application.send_bytes(head(path, "content-length: 10000000000", method=method, host=host))
    assert (reply.status_code, error_of(reply)["code"]) == (404, "not_found")
    assert "/v1/, /api/chat, /api/v1/, /admin/ and /docs/" in error_of(reply)["message"]


def test_an_unserved_path_of_the_gateways_own_format_is_refused_in_it(application: Application) -> None:
    reply = application.send("GET", "/api/nope")
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("path", [*PAGES, *API, "/"])
def test_a_wrong_host_is_refused_in_the_form_of_the_path(application: Application, path: str) -> None:
    reply = application.send_bytes(head(path, "connection: close", method="GET", host="evil.example"))
    assert reply.status_code == 400
    assert "ALLOWED_HOSTS" in message_of(path, reply)


@pytest.mark.parametrize("path", [*PAGES, *API, "/v1/chat/completions"])
@pytest.mark.parametrize(
    "chunks",
    [b"-5\r\nabc\r\n", b"fffffffffffffffffff\r\nabc", b"3\nabc\n0\n\n", b"3\r\nabc\r\n0\r\n" + b"a: b\r\n" * 20_000],
    ids=["negative", "huge", "bare line ends", "trailers"],
)
def test_broken_chunks_are_a_400_in_the_form_of_the_path(application: Application, path: str, chunks: bytes) -> None:
    key = f"authorization: Bearer {application.secret}"
    lines = ("transfer-encoding: chunked", key)
    with application.connect() as connection:
        connection.sendall(head(path, *lines) + chunks + b"\r\n")
        reply = read_answer(connection)
    assert reply.status_code == 400
    assert "The request body is malformed" in message_of(path, reply)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_paths_without_a_key_take_64_kb_too(application: Application, path: str) -> None:
    reply = application.send_bytes(head(path, f"content-length: {ANONYMOUS_BYTES + 1}", method="GET"))
    assert (reply.status_code, error_of(reply)["code"]) == (413, "request_too_large")


# --- Whoever has proven something -------------------------------------------------------------------------------------


@pytest.fixture
def session(transactional_db: None) -> str:
    """The cookie of a member of staff who has signed in."""
    client = Client()
    client.force_login(User.objects.create_user("ada", is_staff=True))
    return f"sessionid={client.cookies['sessionid'].value}"


def large_form(application: Application, cookie: str) -> httpx2.Response:
    return application.http.post(
        f"{application.gateway.url}/admin/login/",
        content=b"a=" + b"b" * ANONYMOUS_BYTES,
        headers={"cookie": cookie, "content-type": "application/x-www-form-urlencoded"},
    )


def test_staff_who_are_signed_in_may_send_more(application: Application, session: str) -> None:
    # It gets as far as the check of the form's own token.
    assert large_form(application, session).status_code == 403


@pytest.mark.parametrize("change", ["invented", "ended", "no staff"])
def test_a_session_that_is_not_in_force_is_no_proof(application: Application, session: str, change: str) -> None:
    if change == "invented":
        session = session[:-1] + ("a" if session[-1] != "a" else "b")
    elif change == "ended":
        User.objects.update(is_active=False)
    else:
        User.objects.update(is_staff=False)
    reply = large_form(application, session)
    assert reply.status_code == 413
    assert "larger than 64 KB" in message_of("/admin/login/", reply)


def test_a_key_may_send_more_to_the_management_api_but_not_without_bound(application: Application) -> None:
    large, huge = (
        application.send("POST", "/api/v1/exports/", body=b" " * size, headers={"content-type": "application/json"})
        for size in (ANONYMOUS_BYTES + 1, 3 * 1024 * KB)
    )
    assert (large.status_code, huge.status_code) == (403, 413)
    assert "larger than 2.5 MB" in message_of("/api/v1/exports/", huge)


def test_an_unknown_key_may_not(application: Application, transactional_db: None) -> None:
    from llm.models import ApiKey

    ApiKey.objects.update(digest=b"another")
    reply = application.send("POST", "/api/v1/exports/", body=b" " * (ANONYMOUS_BYTES + 1))
    assert reply.status_code == 413
    assert "larger than 64 KB" in message_of("/api/v1/exports/", reply)


# --- The log ----------------------------------------------------------------------------------------------------------


def test_nothing_that_a_stranger_sends_is_an_error_in_the_log(
    start_gateway: Callable[..., Gateway], http: httpx2.Client, api_key: str
) -> None:
    gateway = start_gateway(LLM_LOG_FORMAT="json", LLM_RELAY_STALL_SECONDS="59")
    stranger = Application(gateway, api_key, http)
    for _ in range(50):
        stranger.send_bytes(head("/admin/", "connection: close", method="GET", host="evil.example"))
    for lines in (
        ("cookie: sessionid=%00; csrftoken=\xff",),
        ("content-type: multipart/form-data; boundary=x", "content-length: 5"),
        ("content-type: multipart/form-data", "content-length: 5"),
        ("content-type: application/x-www-form-urlencoded; charset=nope", "content-length: 5"),
    ):
        stranger.send_bytes(head("/admin/login/", "connection: close", *lines) + b"a=%00")
    for path in ("/admin/?x=\xff", "/admin/%00/", "/admin/%ff/", "/docs/%00", "/api/v1/%00", "/static/%00", "/admin"):
        stranger.send_bytes(head(path, "connection: close", method="GET"))
    fields = b"&".join(b"a=1" for _ in range(2000))
    many = (
        "cookie: csrftoken=" + "a" * 32,
        "content-type: application/x-www-form-urlencoded",
        f"content-length: {len(fields)}",
        "connection: close",
    )
    assert stranger.send_bytes(head("/admin/login/", *many) + fields).status_code == 400
    log = gateway.log()
    assert "Traceback" not in log
    assert '"level":"error"' not in log
    assert log.count("request.wrong_host") == 1


def test_of_what_strangers_cause_the_log_has_few_lines_and_metrics_have_all(
    start_gateway: Callable[..., Gateway], http: httpx2.Client, api_key: str
) -> None:
    gateway = start_gateway(LLM_LOG_FORMAT="json", LLM_RELAY_STALL_SECONDS="57")
    stranger = Application(gateway, api_key, http)
    asked = [
        ("GET", "/api/v1/calls/", 401),
        ("GET", "/api/v1/nope/", 404),
        ("GET", "/static/nope.css", 404),
        ("GET", "/nope", 404),
        ("POST", "/admin/login/", 403),
        ("PUT", "/api/v1/schema/", 405),
        ("GET", "/docs/%00", 400),
    ]
    for method, path, status in asked * 30:
        assert stranger.send_bytes(head(path, "connection: close", method=method)).status_code == status
    lines = [orjson.loads(line) for line in gateway.log().splitlines()]
    kinds = Counter((line["logger"], line.get("status_code")) for line in lines if line["level"] == "warning")
    assert max(kinds.values()) <= 3, kinds
    assert "error" not in {line["level"] for line in lines}
    metrics = http.get(f"{gateway.url}/metrics").text
    for status in (400, 401, 403, 404, 405):
        sent = 30 * [each for *_, each in asked].count(status)
        assert f'llm_pages_total{{status="{status}"}} {sent}.0' in metrics


def test_staff_api_users_see_the_same_paths(application: Application) -> None:
    """The front changes nothing for who is served."""
    reply = application.send("GET", "/api/v1/exports/")
    assert (reply.status_code, reply.json()["results"]) == (200, [])
