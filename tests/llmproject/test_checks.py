"""Each system check: what it says, and that it is silent where the settings are right."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.core import checks
from pytest_django import Settings

from llmproject.providers import InstanceSettings

Set = Callable[..., None]
UNKNOWN_PROVIDER = (
    "LLM_DISCONNECT_POLICY names the provider “opnai”, which doesn't exist; did you mean openai? "
    "Known providers: anthropic, echo, openai and openai_compatible."
)


@pytest.fixture
def set_all(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Set:
    """Sets the settings it is given, over settings that have nothing wrong; engine: the database's."""

    def set_all(*, engine: str = "sqlite3", **values: object) -> None:
        right: dict[str, object] = {
            "LLM_SETTING_PROBLEMS": (),
            "LLM_SETTING_WARNINGS": (),
            "LLM_DISCONNECT_POLICY": {"": "drain", "openai": "cancel"},
            "LLM_PROVIDER": "echo",
            "LLM_DEFAULT_MODEL": "echo",
            "OPENAI_API_KEY": "",
            "ANTHROPIC_API_KEY": "",
            "LLM_BASE_URL": "",
            "LLM_OPENAI_BASE_URL": "https://api.openai.com/v1",
            "LLM_ANTHROPIC_BASE_URL": "https://api.anthropic.com",
            "SECRET_KEY": "one long random text",
            "LLM_KEY_PEPPER": "another long random text",
            "LLM_SECRETS_KEY": "a third long random text, of 32 characters and more",
            "DEBUG": False,
            "ALLOWED_HOSTS": ["localhost", "127.0.0.1", "[::1]"],
            "WEB_HOST": "127.0.0.1",
            "WEB_PORT": 8000,
            "WEB_WORKERS": 1,
            "LLM_CONNECT_TIMEOUT_SECONDS": 5.0,
            "LLM_FIRST_BYTE_TIMEOUT_SECONDS": 600.0,
            "LLM_IDLE_TIMEOUT_SECONDS": 120.0,
            "LLM_TOTAL_TIMEOUT_SECONDS": 900.0,
        }
        for name, value in {**right, **values}.items():
            setattr(settings, name, value)
        # Not the setting itself: Django warns of that.
        monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", f"django.db.backends.{engine}")

    return set_all


def found() -> list[tuple[str | None, str]]:
    return [(message.id, str(message.msg)) for message in checks.run_checks(tags=["llm"])]


def test_right_settings_are_passed_in_silence(set_all: Set) -> None:
    set_all()
    assert found() == []


@pytest.mark.parametrize(
    "values",
    [
        {"LLM_PROVIDER": "openai", "OPENAI_API_KEY": "a key"},
        {"LLM_PROVIDER": "anthropic", "ANTHROPIC_API_KEY": "a key"},
        {"LLM_PROVIDER": "openai_compatible", "LLM_BASE_URL": "http://localhost:11434/v1"},
        {"DEBUG": True, "ALLOWED_HOSTS": ["localhost", "app.localhost", "127.0.0.1", "[::1]", "::1", "localhost."]},
        {"DEBUG": False, "ALLOWED_HOSTS": ["llm.example.com", "*"]},
        {"engine": "postgresql", "WEB_WORKERS": 4},
        {"LLM_BASE_URL": "http://localhost:8001/v1"},
        {"LLM_BASE_URL": "http://192.0.2.1:8000/v1"},
        {"LLM_BASE_URL": "http://localhost:8000/v1", "WEB_HOST": "192.0.2.1"},
        {"LLM_IDLE_TIMEOUT_SECONDS": 900.0},
    ],
)
def test_settings_that_may_look_wrong_are_passed_too(set_all: Set, values: dict[str, object]) -> None:
    set_all(**values)
    assert found() == []


@pytest.mark.parametrize(
    ("check_id", "values", "sentence"),
    [
        ("llm.E001", {"LLM_SETTING_PROBLEMS": ("NAME must be red.",)}, "NAME must be red."),
        ("llm.W002", {"LLM_SETTING_WARNINGS": ("Nothing reads LLM_PORT.",)}, "Nothing reads LLM_PORT."),
        (
            "llm.E011",
            {"LLM_DISCONNECT_POLICY": {"": "drain", "opnai": "cancel"}},
            UNKNOWN_PROVIDER,
        ),
        (
            "llm.E002",
            {"LLM_PROVIDER": "opneai"},
            (
                'LLM_PROVIDER is "opneai", which is not a known provider; '
                "use anthropic, echo, openai or openai_compatible."
            ),
        ),
        ("llm.E003", {"LLM_PROVIDER": "openai"}, "LLM_PROVIDER=openai needs OPENAI_API_KEY; set it in .env."),
        ("llm.E003", {"LLM_PROVIDER": "anthropic"}, "LLM_PROVIDER=anthropic needs ANTHROPIC_API_KEY; set it in .env."),
        (
            "llm.E003",
            {"LLM_PROVIDER": "openai_compatible"},
            "LLM_PROVIDER=openai_compatible needs LLM_BASE_URL; set it in .env.",
        ),
        (
            "llm.W001",
            {"LLM_PROVIDER": "openai", "OPENAI_API_KEY": "a key", "LLM_DEFAULT_MODEL": ""},
            "LLM_DEFAULT_MODEL is not set, so a request that names no model is refused; set it in .env.",
        ),
        ("llm.E004", {"SECRET_KEY": ""}, "SECRET_KEY is not set; put a long random string into .env."),
        ("llm.E004", {"LLM_KEY_PEPPER": ""}, "LLM_KEY_PEPPER is not set; put a long random string into .env."),
        (
            "llm.E005",
            {"SECRET_KEY": "change-me-to-a-long-random-text"},
            "SECRET_KEY is still the placeholder of .env.example; put a long random string there.",
        ),
        (
            "llm.E005",
            {"LLM_KEY_PEPPER": "change-me-to-another-long-random-text"},
            "LLM_KEY_PEPPER is still the placeholder of .env.example; put a long random string there.",
        ),
        (
            "llm.E006",
            {"LLM_KEY_PEPPER": "one long random text"},
            "LLM_KEY_PEPPER equals SECRET_KEY; give it a random string of its own.",
        ),
        (
            "llm.E007",
            {"DEBUG": True, "ALLOWED_HOSTS": ["localhost", "llm.example.com"]},
            (
                "DEBUG is on while ALLOWED_HOSTS contains llm.example.com; set DEBUG=false, "
                "because its error pages show the settings to anyone."
            ),
        ),
        (
            "llm.E007",
            {"DEBUG": True, "ALLOWED_HOSTS": ["*"]},
            (
                "DEBUG is on while ALLOWED_HOSTS contains *; set DEBUG=false, "
                "because its error pages show the settings to anyone."
            ),
        ),
        (
            "llm.E008",
            {"WEB_WORKERS": 2},
            (
                "WEB_WORKERS is 2, but SQLite lets one process write at a time; "
                "set WEB_WORKERS=1 or point DATABASE_URL to PostgreSQL."
            ),
        ),
        (
            "llm.E009",
            {"LLM_BASE_URL": "http://localhost:8000/v1"},
            (
                "LLM_BASE_URL points to this gateway itself (127.0.0.1:8000), which would call itself endlessly; "
                "set it to the provider's address, or change WEB_PORT."
            ),
        ),
        (
            "llm.E009",
            {"LLM_OPENAI_BASE_URL": "http://[::1]/v1", "WEB_HOST": "0.0.0.0", "WEB_PORT": 80},
            (
                "LLM_OPENAI_BASE_URL points to this gateway itself (0.0.0.0:80), which would call itself endlessly; "
                "set it to the provider's address, or change WEB_PORT."
            ),
        ),
        (
            "llm.E010",
            {"LLM_FIRST_BYTE_TIMEOUT_SECONDS": 900.5},
            (
                "LLM_FIRST_BYTE_TIMEOUT_SECONDS (900.5) is longer than LLM_TOTAL_TIMEOUT_SECONDS (900); "
                "lower the former or raise the latter."
            ),
        ),
        (
            "llm.E032",
            {"LLM_BODIES_BYTES": 63 * 1024**2, "LLM_BODIES_BYTES_PER_KEY": 32 * 1024**2},
            (
                "LLM_BODIES_BYTES (66060288) is less than twice LLM_MAX_BODY_BYTES (33554432), and no account gets "
                "more than half of it; lower the latter or raise the former."
            ),
        ),
        (
            "llm.E030",
            {"LLM_BODIES_BYTES_PER_KEY": 1024**2},
            (
                "LLM_MAX_BODY_BYTES (33554432) is more than LLM_BODIES_BYTES_PER_KEY (1048576); "
                "lower the former or raise the latter."
            ),
        ),
        (
            "llm.E030",
            {"LLM_BODIES_BYTES": 100 * 1024**2},
            (
                "LLM_BODIES_BYTES_PER_KEY (134217728) is more than LLM_BODIES_BYTES (104857600); "
                "lower the former or raise the latter."
            ),
        ),
    ],
)
def test_a_wrong_setting_is_one_finding(set_all: Set, check_id: str, values: dict[str, object], sentence: str) -> None:
    set_all(**values)
    assert found() == [(check_id, sentence)]


def named(name: str = "main", provider: str = "openai", **values: Any) -> InstanceSettings:
    return InstanceSettings(name, provider, **{"api_keys": ("a key",), "weights": (1,), **values})


LOCAL = named("local", "openai_compatible", base_url="http://localhost:11434/v1")


@pytest.mark.parametrize(
    "instances",
    [
        (named(),),
        (named(), named("openai", "openai"), named("claude", "anthropic", max_tokens=9), LOCAL),
        (named(), named("other", "openai", booked_as="main"), named("third", "openai", booked_as="anthropic")),
        (named(), named("mock", "echo", api_keys=(), weights=())),
    ],
)
def test_instances_that_have_what_they_need(set_all: Set, instances: tuple[InstanceSettings, ...]) -> None:
    policies = {"": "drain", "main": "cancel", "openai": "cancel"}
    set_all(LLM_PROVIDERS=instances, LLM_PROVIDER="main", LLM_DISCONNECT_POLICY=policies)
    assert found() == []


@pytest.mark.parametrize(
    ("check_id", "instance", "values", "sentence"),
    [
        (
            "llm.E002",
            LOCAL,
            {"LLM_PROVIDER": "openai"},
            'LLM_PROVIDER is "openai", which is not an instance in LLM_PROVIDERS; use local or main.',
        ),
        (
            "llm.E033",
            named("claude", "antropic"),
            {},
            (
                'LLM_PROVIDERS gives "claude" the provider "antropic", which is not a known provider; did you mean '
                "anthropic?"
            ),
        ),
        (
            "llm.E034",
            named("anthropic", "openai"),
            {},
            (
                'LLM_PROVIDERS uses "anthropic", which is the name of another provider, for an instance of openai; '
                "give it another name."
            ),
        ),
        (
            "llm.E035",
            named("other", booked_as="mian"),
            {},
            (
                'LLM_PROVIDER_OTHER_BOOKED_AS is "mian"; use the name of a provider or instance: anthropic, echo, '
                "main, openai, openai_compatible or other."
            ),
        ),
        (
            "llm.E036",
            named("claude", "anthropic", dialects=("chat",)),
            {},
            "LLM_PROVIDER_CLAUDE_DIALECTS means nothing to anthropic; remove it.",
        ),
        (
            "llm.E037",
            named("claude", "anthropic", api_keys=()),
            {},
            "LLM_PROVIDER_CLAUDE_API_KEY is not set, and calls to anthropic need it; set it in .env.",
        ),
        (
            "llm.E037",
            named("local", "openai_compatible"),
            {},
            "LLM_PROVIDER_LOCAL_BASE_URL is not set, and calls to openai_compatible need it; set it in .env.",
        ),
        (
            "llm.E009",
            named("local", "openai_compatible", base_url="http://localhost:8000/v1"),
            {},
            (
                "LLM_PROVIDER_LOCAL_BASE_URL points to this gateway itself (127.0.0.1:8000), which would call itself "
                "endlessly; set it to the provider's address, or change WEB_PORT."
            ),
        ),
        (
            "llm.E011",
            LOCAL,
            {"LLM_DISCONNECT_POLICY": {"": "drain", "mian": "cancel"}},
            (
                "LLM_DISCONNECT_POLICY names the provider “mian”, which doesn't exist; did you mean main? "
                "Known providers: local, main, openai and openai_compatible."
            ),
        ),
        (
            "llm.W006",
            LOCAL,
            {"OPENAI_API_KEY": "ollama", "LLM_BASE_URL": "http://localhost:11434/v1"},
            "With LLM_PROVIDERS, OPENAI_API_KEY and LLM_BASE_URL are not used.",
        ),
    ],
)
def test_a_wrong_instance_is_one_finding(
    set_all: Set, check_id: str, instance: InstanceSettings, values: dict[str, object], sentence: str
) -> None:
    usual = {"LLM_PROVIDER": "main", "LLM_DISCONNECT_POLICY": {"": "drain"}}
    set_all(**{**usual, "LLM_PROVIDERS": (named(), instance), **values})
    assert found() == [(check_id, sentence)]


def test_a_value_that_could_not_be_read_is_not_reported_as_missing_too(set_all: Set) -> None:
    problem = "LLM_BASE_URL must be a URL like http://host:port/path or https://host:port/path."
    set_all(LLM_PROVIDER="openai_compatible", LLM_SETTING_PROBLEMS=(problem,))
    assert found() == [("llm.E001", problem)]


def test_each_timeout_that_is_too_long_is_a_finding_of_its_own(set_all: Set) -> None:
    set_all(LLM_TOTAL_TIMEOUT_SECONDS=1.0)
    assert [check_id for check_id, _ in found()] == ["llm.E010"] * 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"LLM_SECRETS_KEY": ""}, []),
        ({"LLM_SECRETS_KEY": "", "ALLOWED_HOSTS": ["llm.example.com"]}, ["llm.W004"]),
        ({"LLM_SECRETS_KEY": "change-me-to-a-third-long-random-text"}, ["llm.E014"]),
        ({"LLM_SECRETS_KEY": "short"}, ["llm.E012"]),
        ({"LLM_SECRETS_KEY": "", "LLM_KEPT_REPLY_MINUTES": 5}, ["llm.E040"]),
        ({"LLM_KEPT_REPLY_MINUTES": 61, "LLM_IDEMPOTENCY_HOURS": 1}, ["llm.E041"]),
        ({"LLM_KEPT_REPLY_MINUTES": 60, "LLM_IDEMPOTENCY_HOURS": 1}, []),
        ({"LLM_SECRETS_KEY": "x" * 40, "LLM_KEY_PEPPER": "x" * 40}, ["llm.E013"]),
        ({"LLM_SECRETS_KEY": "x" * 40, "SECRET_KEY": "x" * 40}, ["llm.E013"]),
    ],
)
def test_the_key_of_stored_secrets(set_all: Set, values: dict[str, object], said: list[str]) -> None:
    set_all(**values)
    assert [identifier for identifier, _ in found()] == said


def test_production_is_told_of_a_missing_key_of_stored_secrets_once(set_all: Set) -> None:
    for hosts in (["localhost"], ["llm.example.com"]):
        set_all(LLM_SECRETS_KEY="", ALLOWED_HOSTS=hosts)
        said = [message for message in checks.run_checks(include_deployment_checks=True) if message.id == "llm.W004"]
        assert [message.msg for message in said] == [
            "LLM_SECRETS_KEY is not set, so webhooks of accounts can't be signed; put a long random string into .env."
        ]


def _ids_with_messages() -> Iterator[tuple[str, str]]:
    """Of each check message in our code, as it is written there."""
    for package in ("llm", "billing", "llmproject"):
        for path in sorted((settings.BASE_DIR / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                for keyword in node.keywords:
                    if keyword.arg == "id" and ast.unparse(node.func.value) == "checks":
                        yield ast.literal_eval(keyword.value), ast.unparse(node.args[0])


@pytest.mark.slow
def test_an_id_means_one_thing() -> None:
    """Who silences a check must silence no other."""
    messages: dict[str, set[str]] = {}
    places: Counter[str] = Counter()
    for check_id, message in _ids_with_messages():
        messages.setdefault(check_id, set()).add(message)
        places[check_id] += 1
    assert {"llm.E001", "llm.E015", "billing.E001"} <= messages.keys()
    assert {check_id: found for check_id, found in messages.items() if len(found) > 1} == {}
    assert [check_id for check_id, number in places.items() if number > 1] == ["llm.W004"]  # deployed or not
