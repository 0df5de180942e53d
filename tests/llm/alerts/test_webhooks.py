"""A receiver over a socket: what it is sent, and what we make of its answers."""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
import time_machine
from django.db import connection

from llm.alerts import webhooks
from llm.alerts.webhooks import WebhookError, ensure_webhook_secret, post_webhook, sign
from llm.models import Account
from llm.secretstore import unseal
from tests.docs.pages import ROOT, blocks
from tests.llm.receivers import Receiver, running_receiver, unused_port

NOW = datetime(2026, 11, 20, 12, 30, 15, 999_999, tzinfo=UTC)
SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes of a test, yes!").decode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as receiver:
        yield receiver


def post(url: str, body: bytes = b'{"a":1}', *, secret: str = SECRET) -> str:
    return post_webhook(url, body, secret=secret, message_id="msg_1", moment=NOW)


def failure_of(url: str) -> str:
    with pytest.raises(WebhookError) as caught:
        post(url)
    return str(caught.value)


# --- The signature ----------------------------------------------------------------------------------------------------


def test_the_signature_is_that_of_the_standards_own_libraries() -> None:
    """Their common test vector."""
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        timestamp=1614265330,
        body=b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_not base64!",
        "whsec_ÄÖÜ",
        base64.b64encode(bytes(32)).decode(),
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
    ],
)
def test_what_is_no_secret_signs_nothing_and_does_not_appear_in_the_message(secret: str) -> None:
    with pytest.raises(WebhookError) as caught:
        sign(secret, message_id="msg_1", timestamp=1, body=b"")
    assert str(caught.value) == "its secret must be whsec_ followed by 24 to 64 bytes in base64"


@pytest.mark.django_db
def test_the_secret_of_an_account_is_made_once() -> None:
    account = Account.objects.create(name="acme")
    another_copy = Account.objects.get()

    secret = ensure_webhook_secret(account)

    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert ensure_webhook_secret(account) == secret
    assert ensure_webhook_secret(another_copy) == secret
    assert unseal(Account.objects.get().webhook_secret) == secret


@pytest.mark.django_db(transaction=True)
def test_senders_that_need_the_secret_at_the_same_moment_agree_on_one() -> None:
    Account.objects.create(name="acme")
    both_have_read = threading.Barrier(2)
    secrets: list[str] = []

    def make() -> None:
        account = Account.objects.get()
        both_have_read.wait(10)
        secrets.append(ensure_webhook_secret(account))
        connection.close()

    threads = [threading.Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert secrets == [unseal(Account.objects.get().webhook_secret)] * 2
    assert secrets[0].startswith("whsec_")


# --- What is sent -----------------------------------------------------------------------------------------------------


def test_the_receiver_gets_json_that_it_can_verify(receiver: Receiver) -> None:
    body = '{"type":"limit.threshold","data":{"account":"Zoë"}}'.encode()
    assert post(receiver.url, body) == "answered 204"

    [received] = receiver.received
    timestamp = str(int(datetime(2026, 11, 20, 12, 30, 15, tzinfo=UTC).timestamp()))
    expected = hmac.new(
        b"thirty-two bytes of a test, yes!", f"msg_1.{timestamp}.".encode() + received.body, hashlib.sha256
    )
    assert received.body == body
    assert received.path == "/hook"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["user-agent"] == "llm-gateway"
    assert received.headers["webhook-id"] == "msg_1"
    assert received.headers["webhook-timestamp"] == timestamp
    assert received.headers["webhook-signature"] == f"v1,{base64.b64encode(expected.digest()).decode()}"


@pytest.mark.parametrize(
    ("wrong", "is_ours"),
    [
        ({}, True),
        ({"webhook-id": "msg_2"}, False),
        ({"webhook-timestamp": "1"}, False),
        ({"webhook-timestamp": "soon"}, False),
        ({"webhook-signature": "v1,bm8="}, False),
        ({"webhook-signature": ""}, False),
    ],
)
@time_machine.travel(NOW, tick=False)
def test_the_documented_way_to_verify_a_webhook_works(receiver: Receiver, wrong: dict[str, str], is_ours: bool) -> None:
    [recipe] = [block for block in blocks(ROOT / "docs/operations.md", "python") if "def is_ours" in block]
    names: dict[str, Any] = {}
    exec(recipe, names)  # noqa: S102 - it is ours
    post(receiver.url)
    [received] = receiver.received
    headers = {**received.headers, **wrong}
    assert names["is_ours"](SECRET, headers, received.body) is is_ours
    assert names["is_ours"](SECRET, headers, received.body + b" ") is False
    assert names["is_ours"]("whsec_" + base64.b64encode(bytes(32)).decode(), headers, received.body) is False


def test_neither_a_proxy_nor_credentials_come_from_the_environment(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_receiver() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        post(receiver.url)
        assert proxy.received == []
    assert len(receiver.received) == 1
    assert "authorization" not in receiver.received[0].headers


# --- What it answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_success(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert post(receiver.url) == f"answered {status}"


@pytest.mark.parametrize("status", [304, 400, 401, 404, 410, 429, 500, 503])
def test_any_other_status_is_a_failure(receiver: Receiver, status: int) -> None:
    receiver.status = status
    assert failure_of(receiver.url) == f"answered {status}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, status: int) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("location", elsewhere.url)
        handler.send_header("content-length", "0")
        handler.end_headers()

    with running_receiver() as elsewhere:
        receiver.answer = redirect
        assert failure_of(receiver.url) == f"answered {status}"
        assert elsewhere.received == []


def test_an_answer_without_an_end_is_not_read(receiver: Receiver) -> None:
    hung_up = threading.Event()

    def write_on(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(bytes(65_536))
        except OSError:
            hung_up.set()

    receiver.answer = write_on
    assert post(receiver.url) == "answered 200"
    assert hung_up.wait(10)


def test_a_head_without_an_end_is_a_failure(receiver: Receiver) -> None:
    def write_on(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            handler.wfile.write(b"x-more: " + b"x" * 4096 + b"\r\n")

    receiver.answer = write_on
    assert failure_of(receiver.url) == "no answer: RemoteProtocolError"


def test_a_receiver_that_never_answers_is_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_SECONDS", 0.3)
    release = threading.Event()
    receiver.answer = lambda handler: release.wait(30)
    assert failure_of(receiver.url) == "no answer within 0.3 seconds"
    release.set()


def test_a_receiver_that_drips_its_answer_is_given_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout for each read would never end this one."""
    monkeypatch.setattr(webhooks, "TIMEOUT_SECONDS", 0.3)
    hung_up = threading.Event()

    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nx-slow: ")
        try:
            while not hung_up.wait(0.02):
                handler.wfile.write(b"x")
        except OSError:
            hung_up.set()

    receiver.answer = drip
    assert failure_of(receiver.url) == "no answer within 0.3 seconds"
    assert hung_up.wait(10)


def test_an_answer_that_is_not_http_is_a_failure(receiver: Receiver) -> None:
    receiver.answer = lambda handler: handler.connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert failure_of(receiver.url) == "no answer: RemoteProtocolError"


def test_nobody_listens_there() -> None:
    assert failure_of(f"http://127.0.0.1:{unused_port()}/hook-with-a-token") == "no answer: ConnectError"


def test_https_without_a_certificate_that_we_trust_is_a_failure(receiver: Receiver) -> None:
    assert failure_of(receiver.url.replace("http:", "https:")) == "no answer: ConnectError"
    assert receiver.received == []


@pytest.mark.parametrize("url", ["ftp://user:s3cret@host/", "http://", "http://[half", "nonsense", "http://host:0x/"])
def test_what_is_no_address_is_a_failure_that_does_not_repeat_it(url: str) -> None:
    failure = failure_of(url)
    assert failure.startswith("no answer: ")
    assert "s3cret" not in failure
