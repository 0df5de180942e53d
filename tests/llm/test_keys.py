"""Keys: what they look like, who they belong to, and when they stop working."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
import time_machine
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from llm import keys
from llm.enums import AccountStatus
from llm.errors import InvalidKey, PermissionDenied
from llm.keys import (
    REFUSED_ACCOUNT,
    REFUSED_KEYS,
    Caller,
    CallerCache,
    create_key,
    digest_of,
    get_or_create_account,
    is_well_formed,
    load_caller,
    own_caller,
    revoke_key,
    rotate_key,
)
from llm.models import Account, ApiKey

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

BODIES = st.text(ALPHABET, min_size=32, max_size=32)


def secret_with(body: str) -> str:
    return f"llm_{body}{keys._checksum(body)}"


def a_caller(**changes: Any) -> Caller:
    values: dict[str, Any] = {"key_id": 1, "allowed_models": frozenset(), "shows_cost": False, **changes}
    return Caller(account_id=1, account_name="acme", key_name="tests", **values)


@pytest.fixture
def acme(db: None) -> Account:
    return get_or_create_account("acme")


# --- What a key looks like --------------------------------------------------------------------------------------------


def test_a_secret_has_the_documented_form(acme: Account) -> None:
    key, secret = create_key(acme, name="tests")
    assert re.fullmatch(r"llm_[0-9A-Za-z]{38}", secret)
    assert (key.prefix, key.last_four) == (secret[:12], secret[-4:])
    assert is_well_formed(secret)


def test_a_known_body_has_a_known_checksum() -> None:
    # 0xA0F292D0 in base62, six digits: keys that people hold must stay valid.
    assert is_well_formed("llm_" + "0" * 32 + "2wjyrI")


@given(BODIES)
def test_any_body_with_its_checksum_is_well_formed(body: str) -> None:
    assert is_well_formed(secret_with(body))


@pytest.mark.slow
@given(BODIES)
def test_every_single_wrong_character_is_noticed(body: str) -> None:
    secret = secret_with(body)
    for position in range(4, len(secret)):
        for wrong in ALPHABET:
            typo = secret[:position] + wrong + secret[position + 1 :]
            assert is_well_formed(typo) == (typo == secret)


@given(BODIES)
def test_every_swap_of_neighbours_is_noticed(body: str) -> None:
    secret = secret_with(body)
    for position in range(4, len(secret) - 1):
        swapped = secret[:position] + secret[position + 1] + secret[position] + secret[position + 2 :]
        assert is_well_formed(swapped) == (swapped == secret)


@pytest.mark.parametrize(
    "change",
    [
        lambda secret: secret.upper(),
        lambda secret: secret[:-1],
        lambda secret: secret + "0",
        lambda secret: secret + "\n",
        lambda secret: " " + secret,
        lambda secret: secret.replace("llm_", "sk-", 1),
        lambda secret: secret[:10] + "é" + secret[11:],
        lambda secret: secret[:10] + "٣" + secret[11:],
        lambda _: "",
    ],
)
def test_what_is_no_key_of_ours_is_told_without_the_database(change: Any) -> None:
    assert not is_well_formed(change(secret_with("aB3" * 10 + "xy")))


# --- What is stored ---------------------------------------------------------------------------------------------------


def test_the_digest_is_an_hmac_under_the_pepper(settings: Any) -> None:
    settings.LLM_KEY_PEPPER = "salt and pepper"
    assert digest_of("llm_x") == hmac.new(b"salt and pepper", b"llm_x", hashlib.sha256).digest()


def test_another_pepper_makes_every_key_unknown(acme: Account, settings: Any) -> None:
    _, secret = create_key(acme, name="tests")
    before = digest_of(secret)
    settings.LLM_KEY_PEPPER = "another pepper"
    assert digest_of(secret) != before
    with pytest.raises(InvalidKey, match="not known"):
        load_caller(secret)


def test_the_secret_is_stored_nowhere(acme: Account) -> None:
    key, secret = create_key(acme, name="tests")
    stored: dict[str, Any] = {**ApiKey.objects.values().get(pk=key.pk)}
    assert bytes(stored.pop("digest")) == digest_of(secret)
    assert secret[12:-4] not in repr(stored)


def test_two_keys_never_share_a_secret(acme: Account) -> None:
    key, _ = create_key(acme, name="one")
    other, _ = create_key(acme, name="two")
    assert key.digest != other.digest
    other.digest = key.digest
    with pytest.raises(IntegrityError), transaction.atomic():
        other.save()


# --- Making one -------------------------------------------------------------------------------------------------------


def test_a_key_holds_what_it_was_given(acme: Account) -> None:
    expires_at = datetime(2100, 1, 1, tzinfo=UTC)
    key, _ = create_key(acme, name="app", expires_at=expires_at, allowed_models=("gpt-4o", "o3"))
    key.refresh_from_db()
    assert (key.account, key.name, key.expires_at, key.revoked_at) == (acme, "app", expires_at, None)
    assert (key.allowed_models, key.rotated_from) == (["gpt-4o", "o3"], None)


def test_a_closed_account_gets_no_key(acme: Account) -> None:
    acme.status = AccountStatus.CLOSED
    acme.save()
    with pytest.raises(ValidationError, match="closed"):
        create_key(acme, name="tests")
    assert ApiKey.objects.count() == 0


def test_a_suspended_account_gets_keys_for_later(acme: Account) -> None:
    acme.status = AccountStatus.SUSPENDED
    acme.save()
    _, secret = create_key(acme, name="tests")
    with pytest.raises(PermissionDenied):
        load_caller(secret)


@pytest.mark.parametrize("before", [timedelta(), timedelta(microseconds=1), timedelta(days=400)])
@time_machine.travel(NOW, tick=False)
def test_a_key_that_would_have_expired_is_not_made(acme: Account, before: timedelta) -> None:
    with pytest.raises(ValidationError) as refusal:
        create_key(acme, name="tests", expires_at=NOW - before)
    assert refusal.value.message_dict == {"expires_at": ["The expiry must be in the future."]}
    assert ApiKey.objects.count() == 0


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_a_key_needs_a_name_that_fits(acme: Account, name: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        create_key(acme, name=name)
    assert list(refusal.value.message_dict) == ["name"]
    assert ApiKey.objects.count() == 0


def test_an_account_is_made_once(db: None) -> None:
    assert get_or_create_account("acme") == get_or_create_account("acme")
    assert Account.objects.get().status == AccountStatus.ACTIVE


@pytest.mark.parametrize("name", ["", "x" * 101])
def test_an_account_needs_a_name_that_fits(db: None, name: str) -> None:
    with pytest.raises(ValidationError):
        get_or_create_account(name)
    assert Account.objects.count() == 0


# --- Recognising one --------------------------------------------------------------------------------------------------


def test_a_caller_is_the_key_and_its_account(acme: Account) -> None:
    acme.shows_cost = True
    acme.save()
    key, secret = create_key(acme, name="app", allowed_models=["gpt-4o"])
    assert load_caller(secret) == Caller(key.pk, acme.pk, "acme", "app", frozenset({"gpt-4o"}), shows_cost=True)


def test_a_well_formed_key_that_nobody_made_is_unknown(db: None) -> None:
    with pytest.raises(InvalidKey) as refusal:
        load_caller(secret_with("0" * 32))
    assert refusal.value.message == REFUSED_KEYS["unknown"]


@time_machine.travel(NOW, tick=False)
def test_a_key_works_up_to_the_moment_it_expires(acme: Account) -> None:
    _, secret = create_key(acme, name="tests", expires_at=NOW + HOUR)
    with time_machine.travel(NOW + HOUR - timedelta(seconds=1), tick=False):
        assert load_caller(secret).key_name == "tests"
    with time_machine.travel(NOW + HOUR, tick=False), pytest.raises(InvalidKey) as refusal:
        load_caller(secret)
    assert refusal.value.message == REFUSED_KEYS["expired"]


@pytest.mark.parametrize("status", [AccountStatus.SUSPENDED, AccountStatus.CLOSED])
def test_keys_of_an_account_that_is_not_active_are_refused(acme: Account, status: AccountStatus) -> None:
    _, secret = create_key(acme, name="tests")
    acme.status = status
    acme.save()
    with pytest.raises(PermissionDenied) as refusal:
        load_caller(secret)
    assert refusal.value.message == REFUSED_ACCOUNT


def test_without_a_list_every_model_is_allowed() -> None:
    a_caller().require_model("anything")


def test_a_model_outside_the_list_is_refused_by_its_whole_name() -> None:
    caller = a_caller(allowed_models=frozenset({"gpt-4o"}))
    caller.require_model("gpt-4o")
    for model in ("gpt-4o-mini", "GPT-4o", "gpt-4", ""):
        with pytest.raises(PermissionDenied) as refusal:
            caller.require_model(model)
        assert (refusal.value.param, refusal.value.http_status) == ("model", 403)


# --- Ending one -------------------------------------------------------------------------------------------------------


@time_machine.travel(NOW, tick=False)
def test_a_revoked_key_is_refused_at_once(acme: Account) -> None:
    key, secret = create_key(acme, name="tests")
    revoke_key(key)
    key.refresh_from_db()
    assert key.revoked_at == NOW
    with pytest.raises(InvalidKey) as refusal:
        load_caller(secret)
    assert refusal.value.message == REFUSED_KEYS["revoked"]


def test_revoking_again_changes_nothing(acme: Account) -> None:
    key, _ = create_key(acme, name="tests")
    with time_machine.travel(NOW, tick=False):
        revoke_key(key)
    with time_machine.travel(NOW + HOUR, tick=False):
        revoke_key(key)
    key.refresh_from_db()
    assert key.revoked_at == NOW


@time_machine.travel(NOW, tick=False)
def test_revoking_ends_a_grace_period(acme: Account) -> None:
    key, secret = create_key(acme, name="tests")
    rotate_key(key, grace=HOUR)
    revoke_key(key)
    with pytest.raises(InvalidKey):
        load_caller(secret)


@time_machine.travel(NOW, tick=False)
def test_a_rotation_without_grace_ends_the_old_key_at_once(acme: Account) -> None:
    key, secret = create_key(acme, name="app", expires_at=NOW + 2 * HOUR, allowed_models=["gpt-4o"])
    successor, new_secret = rotate_key(key)
    with pytest.raises(InvalidKey):
        load_caller(secret)
    assert load_caller(new_secret).key_id == successor.pk
    successor.refresh_from_db()
    assert (successor.name, successor.account, successor.expires_at) == ("app", acme, NOW + 2 * HOUR)
    assert (successor.allowed_models, successor.rotated_from, successor.revoked_at) == (["gpt-4o"], key, None)


@time_machine.travel(NOW, tick=False)
def test_a_rotation_with_grace_lets_both_keys_work_until_it_ends(acme: Account) -> None:
    key, secret = create_key(acme, name="tests")
    _, new_secret = rotate_key(key, grace=HOUR)
    with time_machine.travel(NOW + HOUR - timedelta(seconds=1), tick=False):
        assert load_caller(secret).key_id != load_caller(new_secret).key_id
    with time_machine.travel(NOW + HOUR, tick=False):
        assert load_caller(new_secret).key_name == "tests"
        with pytest.raises(InvalidKey):
            load_caller(secret)


@time_machine.travel(NOW, tick=False)
def test_a_second_rotation_never_prolongs_the_first_ones_grace(acme: Account) -> None:
    key, _ = create_key(acme, name="tests")
    rotate_key(key, grace=HOUR)
    rotate_key(key, grace=24 * HOUR)
    key.refresh_from_db()
    assert key.revoked_at == NOW + HOUR


def test_a_revoked_key_is_not_rotated(acme: Account) -> None:
    key, _ = create_key(acme, name="tests")
    revoke_key(key)
    with pytest.raises(ValidationError, match="revoked: create a new one"):
        rotate_key(key)
    assert ApiKey.objects.get() == key


def test_an_expired_key_is_not_rotated(acme: Account) -> None:
    with time_machine.travel(NOW, tick=False):
        key, _ = create_key(acme, name="tests", expires_at=NOW + HOUR)
    with time_machine.travel(NOW + HOUR, tick=False), pytest.raises(ValidationError, match="expired"):
        rotate_key(key)
    assert ApiKey.objects.get().revoked_at is None


def test_a_rotation_on_a_closed_account_leaves_the_old_key_as_it_was(acme: Account) -> None:
    key, _ = create_key(acme, name="tests")
    acme.status = AccountStatus.CLOSED
    acme.save()
    with pytest.raises(ValidationError, match="closed"):
        rotate_key(key)
    assert ApiKey.objects.get().revoked_at is None


def test_a_rotation_that_fails_half_way_leaves_everything_as_it_was(
    acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = create_key(acme, name="tests")
    save = ApiKey.save

    def fail_to_end_the_old_one(record: ApiKey, **options: Any) -> None:
        if options.get("update_fields") == ["revoked_at"]:
            raise IntegrityError
        save(record, **options)

    monkeypatch.setattr(ApiKey, "save", fail_to_end_the_old_one)
    with pytest.raises(IntegrityError):
        rotate_key(key)
    assert ApiKey.objects.get() == key
    assert load_caller(secret).key_id == key.pk


# --- The gateway's own calls ------------------------------------------------------------------------------------------


def test_own_calls_go_on_an_account_of_their_own_with_one_key(db: None) -> None:
    first, second = own_caller(), own_caller()
    assert first == second
    assert (first.account_name, first.key_name, first.shows_cost) == ("internal", "in-process calls", False)
    assert ApiKey.objects.get().pk == first.key_id


def test_own_calls_get_a_new_key_when_theirs_was_revoked(db: None) -> None:
    first = own_caller()
    revoke_key(ApiKey.objects.get())
    assert own_caller().key_id != first.key_id


# --- What a process remembers -----------------------------------------------------------------------------------------


def test_a_remembered_caller_is_found_by_its_secret_only(settings: Any) -> None:
    cache, caller = CallerCache(), a_caller()
    cache.put("llm_one", caller)
    assert cache.get("llm_one") is caller
    assert cache.get("llm_two") is None
    assert b"llm_one" not in repr(cache._entries).encode()


def test_a_caller_is_remembered_for_as_long_as_the_setting_says(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.LLM_KEY_CACHE_SECONDS = 5.0
    now = 1000.0
    monkeypatch.setattr(keys, "time", SimpleNamespace(monotonic=lambda: now))
    cache = CallerCache()
    cache.put("llm_one", a_caller())
    now = 1004.9
    assert cache.get("llm_one") is not None
    now = 1005.1
    assert cache.get("llm_one") is None


def test_no_more_callers_are_remembered_than_the_bound() -> None:
    cache = CallerCache(limit=3)
    for number in range(10):
        cache.put(f"llm_{number}", a_caller())
        assert len(cache._entries) <= 3
    assert cache.get("llm_9") is not None


def test_what_was_put_last_is_remembered_longest() -> None:
    cache = CallerCache(limit=3)
    for number in (1, 2, 3, 1, 4):
        cache.put(f"llm_{number}", a_caller(key_id=number))
    assert [number for number in range(1, 5) if cache.knows(f"llm_{number}")] == [1, 3, 4]


def test_a_caller_that_has_expired_stays_known_and_others_stay_as_they_are() -> None:
    cache = CallerCache()
    for number in (1, 2):
        cache.put(f"llm_{number}", a_caller(key_id=number))
    cache.expire(1)
    cache.expire(99)
    assert (cache.get("llm_1"), cache.knows("llm_1")) == (None, True)
    assert cache.get("llm_2") is not None
    fresh = a_caller(key_id=1, shows_cost=True)
    cache.refresh(fresh)
    cache.refresh(a_caller(key_id=99))
    assert cache.get("llm_1") is fresh


@pytest.mark.parametrize("is_by_key", [True, False])
def test_a_caller_that_was_forgotten_is_not_known(is_by_key: bool) -> None:
    cache = CallerCache()
    cache.put("llm_one", a_caller())
    if is_by_key:
        cache.forget_key(1)
    else:
        cache.forget("llm_one")
    assert not cache.knows("llm_one")
    cache.refresh(a_caller())
    cache.expire(1)
    assert cache.get("llm_one") is None
