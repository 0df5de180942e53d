"""Who may call. Every refusal acts at once, in every process; nothing is written and nothing sent for it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import httpx2
import pytest
from django.utils import timezone

from llm.enums import AccountStatus
from llm.keys import create_key, get_or_create_account, is_well_formed, revoke_key, rotate_key
from llm.models import Account, ApiKey, Usage
from tests.books import closed_usage
from tests.e2e.callers import CHAT, Application, assert_nothing_happened, error_of, hello, native_error_of
from tests.fakes import FakeUpstream
from tests.gateway_process import Gateway

pytestmark = pytest.mark.e2e

# Well formed, and nobody's.
UNKNOWN = "llm_000000000000000000000000000000002wjyrI"


def assert_refused(reply: httpx2.Response, message: str) -> None:
    """With 401, and a message that begins so."""
    error = error_of(reply)
    assert (reply.status_code, error["code"], error["type"]) == (401, "invalid_api_key", "invalid_request_error")
    assert error["message"].startswith(message)


# --- Which credential a request carries -------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"authorization": ""}, {"authorization": "Bearer"}, {"x-api-key": ""}])
def test_a_request_without_a_key_is_refused(
    application: Application, upstream: FakeUpstream, headers: dict[str, str]
) -> None:
    reply = application.http.post(f"{application.gateway.url}{CHAT}", content=hello(), headers=headers)
    assert_refused(reply, "No API key was sent.")
    assert_nothing_happened(upstream)


@pytest.mark.parametrize(
    "credential",
    [
        *("llm_wrong", "sk-proj-0123456789abcdef0123456789abcdef", UNKNOWN[:-1], UNKNOWN + "0", UNKNOWN.upper()),
        *("llm_" + "0" * 38, "llm_" + "é" * 38, "llm_%00" + "0" * 35),
    ],
)
def test_what_is_none_of_our_keys_is_refused_without_the_database(
    application: Application, bookless: Gateway, upstream: FakeUpstream, credential: str
) -> None:
    headers = {b"x-api-key": credential.encode("latin-1")}
    for gateway in (application.gateway, bookless):
        reply = application.http.post(f"{gateway.url}{CHAT}", content=hello(), headers=headers)
        assert_refused(reply, "This is not one of our API keys")
    assert_nothing_happened(upstream)


def test_a_key_with_a_typo_is_refused_without_the_database(
    application: Application, bookless: Gateway, upstream: FakeUpstream
) -> None:
    typo = application.secret[:10] + ("a" if application.secret[10] != "a" else "b") + application.secret[11:]
    assert_refused(application.using(typo).at(bookless).chat(), "This is not one of our API keys")
    assert_nothing_happened(upstream)


def test_a_well_formed_key_that_nobody_made_is_refused(application: Application, upstream: FakeUpstream) -> None:
    assert is_well_formed(UNKNOWN)
    assert_refused(application.using(UNKNOWN).chat(), "This API key is not known.")
    assert_nothing_happened(upstream)


def test_a_key_is_taken_from_any_of_the_headers(application: Application) -> None:
    for headers in (
        {"authorization": f"Bearer {application.secret}"},
        {"authorization": f"bearer  {application.secret}"},
        {"x-api-key": application.secret},
        {"api-key": application.secret},
        {"authorization": "Basic cHJveHk6c2VjcmV0", "x-api-key": application.secret},
        {"authorization": "Bearer of-the-proxy", "api-key": application.secret},
        {"authorization": f"Bearer {application.secret}", "x-api-key": application.secret},
    ):
        reply = application.http.post(f"{application.gateway.url}{CHAT}", content=hello(), headers=headers)
        assert reply.status_code == 200
    assert {row.api_key_id for row in closed_usage(7)} == {ApiKey.objects.get().pk}


def test_two_different_keys_are_refused_even_if_both_are_good(
    application: Application, account: Account, upstream: FakeUpstream
) -> None:
    _, other = create_key(account, name="other")
    for header in ("x-api-key", "api-key"):
        reply = application.send("POST", CHAT, body=hello(), headers={header: other})
        assert_refused(reply, "Two different API keys")
    assert_nothing_happened(upstream)


def test_the_native_endpoint_refuses_a_key_in_its_own_words(application: Application, upstream: FakeUpstream) -> None:
    reply = application.using(UNKNOWN).chat(path="/api/chat")
    assert (reply.status_code, native_error_of(reply)["code"]) == (401, "invalid_api_key")
    assert_nothing_happened(upstream)


# --- A key that was good a moment ago ---------------------------------------------------------------------------------


def warm_up(application: Application, *gateways: Gateway) -> None:
    """Each of these processes knows the key from now on."""
    for gateway in gateways:
        assert application.at(gateway).chat().status_code == 200
        assert application.at(gateway).send("GET", "/v1/models").status_code == 200
    closed_usage(len(gateways))


def assert_refused_everywhere(
    application: Application, upstream: FakeUpstream, *gateways: Gateway, status: int, message: str
) -> None:
    """Whole, as a stream, and for the list of models; and no row or call is added to those of `warm_up`."""
    for gateway in gateways:
        caller = application.at(gateway)
        for reply in (caller.chat(), caller.chat(stream=True), caller.send("GET", "/v1/models")):
            assert (reply.status_code, error_of(reply)["message"][: len(message)]) == (status, message)
    assert Usage.objects.count() == len(upstream.ledger.entries()) == len(gateways)


def test_a_revoked_key_is_refused_on_the_very_next_call_of_every_process(
    application: Application, cancelling: Gateway, upstream: FakeUpstream
) -> None:
    both = application.gateway, cancelling
    warm_up(application, *both)
    revoke_key(ApiKey.objects.get())
    assert_refused_everywhere(application, upstream, *both, status=401, message="This API key was revoked.")


def test_a_key_that_expires_is_refused_on_the_very_next_call(application: Application, upstream: FakeUpstream) -> None:
    warm_up(application, application.gateway)
    ApiKey.objects.update(expires_at=timezone.now())
    assert_refused_everywhere(
        application, upstream, application.gateway, status=401, message="This API key has expired."
    )


@pytest.mark.parametrize("status", [AccountStatus.SUSPENDED, AccountStatus.CLOSED])
def test_the_keys_of_an_account_that_is_not_active_are_refused_on_the_very_next_call(
    application: Application, cancelling: Gateway, account: Account, upstream: FakeUpstream, status: AccountStatus
) -> None:
    both = application.gateway, cancelling
    warm_up(application, *both)
    account.status = status
    account.save()
    assert_refused_everywhere(application, upstream, *both, status=403, message="This account is not active.")


def test_a_suspended_account_that_is_active_again_is_served(application: Application, account: Account) -> None:
    warm_up(application, application.gateway)
    Account.objects.update(status=AccountStatus.SUSPENDED)
    assert application.chat().status_code == 403
    Account.objects.update(status=AccountStatus.ACTIVE)
    assert application.chat().status_code == 200
    closed_usage(2)


def test_a_rotated_key_works_on_for_its_grace_and_its_successor_from_the_start(application: Application) -> None:
    warm_up(application, application.gateway)
    successor, secret = rotate_key(ApiKey.objects.get(), grace=timedelta(hours=1))
    assert application.chat().status_code == 200
    assert application.using(secret).chat().status_code == 200
    assert closed_usage(3)[-1].api_key_id == successor.pk


def test_a_key_rotated_without_grace_is_refused_on_the_very_next_call(
    application: Application, upstream: FakeUpstream
) -> None:
    warm_up(application, application.gateway)
    _, secret = rotate_key(ApiKey.objects.get())
    assert_refused_everywhere(
        application, upstream, application.gateway, status=401, message="This API key was revoked."
    )
    assert application.using(secret).chat().status_code == 200


def test_a_key_is_refused_once_its_grace_is_over(application: Application, upstream: FakeUpstream) -> None:
    warm_up(application, application.gateway)
    rotate_key(ApiKey.objects.get(), grace=timedelta(hours=1))
    ApiKey.objects.filter(rotations__isnull=False).update(revoked_at=timezone.now())
    assert_refused_everywhere(
        application, upstream, application.gateway, status=401, message="This API key was revoked."
    )


# --- Which models a key may call --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
def test_a_model_that_the_key_is_not_for_is_refused(
    application: Application, account: Account, upstream: FakeUpstream, path: str
) -> None:
    _, secret = create_key(account, name="narrow", allowed_models=["gpt-4o-mini"])
    reply = application.using(secret).chat("gpt-4o", path=path)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "permission_denied")
    assert_nothing_happened(upstream)
    assert application.using(secret).chat("gpt-4o-mini", path=path).status_code == 200
    assert [row.model for row in closed_usage()] == ["gpt-4o-mini"]


def test_a_restriction_that_is_added_acts_on_the_very_next_call_of_every_process(
    application: Application, cancelling: Gateway, upstream: FakeUpstream
) -> None:
    both = application.gateway, cancelling
    warm_up(application, *both)
    ApiKey.objects.update(allowed_models=["gpt-4o-mini"])
    for gateway in both:
        for is_stream in (False, True):
            reply = application.at(gateway).chat("gpt-4o", stream=is_stream)
            assert (reply.status_code, error_of(reply)["code"]) == (403, "permission_denied")
            assert error_of(reply)["type"] == "permission_error"
    assert Usage.objects.count() == len(upstream.ledger.entries()) == len(both)
    assert application.chat("gpt-4o-mini").status_code == 200


def test_a_model_that_was_just_allowed_is_served_at_once_by_every_process(
    application: Application, account: Account, cancelling: Gateway
) -> None:
    """Each process remembers its callers for some seconds."""
    key, secret = create_key(account, name="narrow", allowed_models=["gpt-4o-mini"])
    both = application.gateway, cancelling
    for gateway in both:
        assert application.using(secret).at(gateway).chat("gpt-4o").status_code == 403
    ApiKey.objects.filter(pk=key.pk).update(allowed_models=["gpt-4o-mini", "gpt-4o"])
    for gateway in both:
        assert application.using(secret).at(gateway).chat("gpt-4o").status_code == 200
    assert [row.model for row in closed_usage(2)] == ["gpt-4o"] * 2


def test_each_key_calls_on_the_books_of_its_own_account(application: Application, account: Account) -> None:
    other = get_or_create_account("other")
    _, secret = create_key(other, name="theirs")
    application.chat()
    application.using(secret).chat()
    application.chat()
    assert [row.account_id for row in closed_usage(3)] == [account.pk, other.pk, account.pk]


def test_a_key_made_while_the_gateway_runs_works_at_once(
    application: Application, account: Account, start_gateway: Callable[..., Gateway]
) -> None:
    assert application.using(UNKNOWN).chat().status_code == 401
    _, secret = create_key(account, name="new")
    assert application.using(secret).chat().status_code == 200
    closed_usage()
