"""Which instances there are, with which keys; a key is for one server, and an account keeps its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from pytest_django import Settings

from llm.enums import Dialect
from llm.providers.registry import booked_providers, configured_secrets, find_instance, instances, upstream_key
from llmproject.providers import InstanceSettings

KEYS = ("sk-first-key-0123456789", "sk-second-key-0123456789")
LOCAL_URL = "http://localhost:11434/v1"


def name_instances(settings: Settings, *named: InstanceSettings) -> None:
    settings.LLM_PROVIDERS = named


def two_keys(*weights: int, keys: tuple[str, ...] = KEYS) -> InstanceSettings:
    return InstanceSettings("main", "openai", api_keys=keys, weights=weights)


# --- One provider -----------------------------------------------------------------------------------------------------


def single(settings: Settings, **values: Any) -> dict[str, tuple[str, str]]:
    """Name -> key and what is missing."""
    unset = {"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": "", "LLM_COMPATIBLE_API_KEY": "", "LLM_BASE_URL": ""}
    for name, value in {**unset, **values}.items():
        setattr(settings, name, value)
    return {each.name: (each.credentials[0].api_key, each.lacks) for each in instances().all}


def test_the_key_of_a_local_server_goes_nowhere_else(settings: Settings) -> None:
    found = single(settings, LLM_PROVIDER="openai_compatible", LLM_BASE_URL=LOCAL_URL, OPENAI_API_KEY="ollama")
    assert found["openai_compatible"] == ("ollama", "")
    assert found["openai"] == ("", "OPENAI_API_KEY")


@pytest.mark.parametrize("provider", ["openai", "anthropic", "echo"])
def test_openais_key_is_not_sent_to_another_server(settings: Settings, provider: str) -> None:
    found = single(settings, LLM_PROVIDER=provider, LLM_BASE_URL=LOCAL_URL, OPENAI_API_KEY="sk-openai")
    assert found["openai"] == ("sk-openai", "")
    assert found["openai_compatible"] == ("", "")


def test_a_local_server_with_a_key_of_its_own_leaves_openais_alone(settings: Settings) -> None:
    found = single(
        settings,
        LLM_PROVIDER="openai_compatible",
        LLM_BASE_URL=LOCAL_URL,
        OPENAI_API_KEY="sk-openai",
        LLM_COMPATIBLE_API_KEY="sk-local",
    )
    assert (found["openai"], found["openai_compatible"]) == (("sk-openai", ""), ("sk-local", ""))


# --- Several ----------------------------------------------------------------------------------------------------------


def test_an_instance_has_its_own_settings(settings: Settings) -> None:
    settings.OPENAI_API_KEY = "sk-of-nobody"
    name_instances(
        settings,
        two_keys(1, 1),
        InstanceSettings("claude", "anthropic", api_keys=("sk-ant",), weights=(1,), max_tokens=500),
        InstanceSettings("local", "openai_compatible", base_url=LOCAL_URL, dialects=("responses",), booked_as="local"),
    )
    main, claude, local = instances().all
    assert (main.base_url, main.booked_as, main.lacks) == ("https://api.openai.com/v1", "openai", "")
    assert Dialect.OPENAI_EMBEDDINGS in main.dialects
    assert (claude.base_url, claude.max_output_tokens) == ("https://api.anthropic.com", 500)
    assert local.dialects == {Dialect.OPENAI_CHAT, Dialect.OPENAI_RESPONSES}
    assert (local.booked_as, local.credentials[0].api_key) == ("local", "")
    assert configured_secrets() == ("sk-ant", *KEYS)
    assert "local" in booked_providers()
    assert find_instance("anthropic") is claude
    assert find_instance("echo") is None
    assert repr(KEYS[0])[1:-1] not in repr((settings.LLM_PROVIDERS, instances().all))


def test_what_is_missing_is_named_by_its_variable(settings: Settings) -> None:
    name_instances(settings, InstanceSettings("main", "openai"), InstanceSettings("local", "openai_compatible"))
    assert [each.lacks for each in instances().all] == ["LLM_PROVIDER_MAIN_API_KEY", "LLM_PROVIDER_LOCAL_BASE_URL"]


def test_a_policy_of_its_own_goes_before_those_by_name(settings: Settings) -> None:
    name_instances(settings, two_keys(1, 1), InstanceSettings("claude", "anthropic", disconnect_policy="drain"))
    main, claude = instances().all
    policies = {"": "drain", "openai": "cancel", "claude": "cancel"}
    assert (main.policy(policies), claude.policy(policies)) == ("cancel", "drain")
    assert main.policy({**policies, "main": "drain"}) == "drain"


# --- Keys -------------------------------------------------------------------------------------------------------------


def test_accounts_are_shared_out_by_weight_and_keep_their_keys(settings: Settings) -> None:
    name_instances(settings, two_keys(3, 1))
    [main] = instances().all
    first = {account: main.credentials_for(account)[0] for account in range(4000)}
    shares = Counter(credential.api_key for credential in first.values())
    assert 0.70 < shares[KEYS[0]] / 4000 < 0.80
    name_instances(settings, two_keys(1, 3, keys=(KEYS[1], KEYS[0])))
    assert all(instances().all[0].credentials_for(account)[0].id == each.id for account, each in first.items())


def test_a_third_key_moves_only_the_accounts_that_it_gets(settings: Settings) -> None:
    name_instances(settings, two_keys(1, 1))
    before = [instances().all[0].credentials_for(account)[0].id for account in range(1000)]
    name_instances(settings, two_keys(1, 1, 1, keys=(*KEYS, "sk-third-key-0123456789")))
    third = instances().all[0].credentials[2].id
    after = [instances().all[0].credentials_for(account)[0].id for account in range(1000)]
    assert all(new in (old, third) for old, new in zip(before, after, strict=True))
    assert 250 < after.count(third) < 420


def test_a_key_without_weight_only_serves_what_it_made(settings: Settings) -> None:
    name_instances(settings, two_keys(0, 1))
    [main] = instances().all
    retired, current = main.credentials
    assert {main.credentials_for(account)[0] for account in range(100)} == {current}
    assert main.credential(retired.id, account_id=1) is retired
    assert main.credential("gone", account_id=1) is current
    assert upstream_key("main", retired.id) == KEYS[0]
