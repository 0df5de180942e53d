"""What must be right before anything starts; each finding is one sentence that says what is wrong and what to do."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from llm.providers.instances import ANTHROPIC_URL, OPENAI_URL
from llm.providers.registry import instances, known_providers
from llmproject.names import nearest
from llmproject.providers import InstanceSettings, variable

PLACEHOLDER: Final = "change-me"
TIMEOUTS_WITHIN_TOTAL: Final = (
    "LLM_CONNECT_TIMEOUT_SECONDS",
    "LLM_FIRST_BYTE_TIMEOUT_SECONDS",
    "LLM_IDLE_TIMEOUT_SECONDS",
)
SINGLE_PROVIDER: Final = {
    "OPENAI_API_KEY": "",
    "ANTHROPIC_API_KEY": "",
    "LLM_COMPATIBLE_API_KEY": "",
    "LLM_BASE_URL": "",
    "LLM_OPENAI_BASE_URL": OPENAI_URL,
    "LLM_ANTHROPIC_BASE_URL": ANTHROPIC_URL,
    "LLM_ANTHROPIC_MAX_TOKENS": 0,
}
"""The settings that nothing reads where LLM_PROVIDERS is set, and what they are where they aren't."""
UPSTREAM_URLS: Final = ("LLM_BASE_URL", "LLM_OPENAI_BASE_URL", "LLM_ANTHROPIC_BASE_URL")
FOREIGN_OPTIONS: Final = {
    "openai": ("MAX_TOKENS", "DEVELOPER_ROLE"),
    "openai_compatible": ("MAX_TOKENS",),
    "anthropic": ("DIALECTS", "DEVELOPER_ROLE"),
    "echo": ("DIALECTS", "DEVELOPER_ROLE", "MAX_TOKENS"),
}
"""What an instance of a provider makes nothing of; one of your own may make something of each."""
MIN_SECRETS_KEY_LENGTH: Final = 32
NO_SECRETS_KEY: Final = (
    "LLM_SECRETS_KEY is not set, so webhooks of accounts can't be signed; put a long random string into .env."
)
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@checks.register("llm")
def check_values(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Values that couldn't be parsed when the settings were loaded."""
    return [
        *(checks.Error(problem, id="llm.E001") for problem in settings.LLM_SETTING_PROBLEMS),
        *(
            checks.Warning(
                warning,
                "If one of them is meant for a provider of your own, list it in LLM_EXTRA_SETTINGS.",
                id="llm.W002",
            )
            for warning in settings.LLM_SETTING_WARNINGS
        ),
    ]


@checks.register("llm")
def check_named_providers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Settings that say something of single providers, by name; the empty name stands for all others."""
    known = sorted({name for each in instances().all for name in (each.name, each.provider)})
    return [
        checks.Error(
            f"{setting} names the provider “{name}”, which doesn't exist; did you mean {nearest(name, known)}? "
            f"Known providers: {_all_of(known)}.",
            id="llm.E011",
        )
        for setting in settings.LLM_SETTINGS_BY_PROVIDER
        for name in getattr(settings, setting)
        if name and name not in known
    ]


@checks.register("llm")
def check_provider(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    provider, named = settings.LLM_PROVIDER, {each.name: each for each in instances().all}
    if provider not in named:
        kind = "an instance in LLM_PROVIDERS" if settings.LLM_PROVIDERS else "a known provider"
        sentence = f'LLM_PROVIDER is "{provider}", which is not {kind}; use {_either(sorted(named))}.'
        return [checks.Error(sentence, id="llm.E002")]
    required = "" if settings.LLM_PROVIDERS else named[provider].lacks
    # A value that could not be read has its own sentence already.
    if required and not _is_reported(required):
        return [checks.Error(f"LLM_PROVIDER={provider} needs {required}; set it in .env.", id="llm.E003")]
    if not settings.LLM_DEFAULT_MODEL:
        return [
            checks.Warning(
                "LLM_DEFAULT_MODEL is not set, so a request that names no model is refused; set it in .env.",
                id="llm.W001",
            )
        ]
    return []


@checks.register("llm")
def check_instances(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """What each instance of LLM_PROVIDERS needs, and what contradicts its provider."""
    known, named = known_providers(), settings.LLM_PROVIDERS
    found: list[checks.CheckMessage] = []
    for each in named:
        if not each.provider:
            # Reported where it was read.
            continue
        if each.provider not in known:
            sentence = (
                f'LLM_PROVIDERS gives "{each.name}" the provider "{each.provider}", which is not a known provider; '
                f"did you mean {nearest(each.provider, known)}?"
            )
            found.append(checks.Error(sentence, id="llm.E033"))
        elif each.name in known and each.name != each.provider:
            sentence = (
                f'LLM_PROVIDERS uses "{each.name}", which is the name of another provider, for an instance of '
                f"{each.provider}; give it another name."
            )
            found.append(checks.Error(sentence, id="llm.E034"))
        found += [*_check_booking(each), *_check_options(each)]
    return found + [
        checks.Error(f"{each.lacks} is not set, and calls to {each.provider} need it; set it in .env.", id="llm.E037")
        for each in instances().all
        if named and each.lacks and not _is_reported(each.lacks)
    ]


def _check_booking(instance: InstanceSettings) -> Iterator[checks.CheckMessage]:
    allowed = sorted({*known_providers(), *(each.name for each in settings.LLM_PROVIDERS)})
    if instance.booked_as and instance.booked_as not in allowed:
        setting = variable(instance.name, "BOOKED_AS")
        sentence = f'{setting} is "{instance.booked_as}"; use the name of a provider or instance: {_either(allowed)}.'
        yield checks.Error(sentence, id="llm.E035")


def _check_options(instance: InstanceSettings) -> Iterator[checks.CheckMessage]:
    for option in FOREIGN_OPTIONS.get(instance.provider, ()):
        if option in instance.given:
            sentence = f"{variable(instance.name, option)} means nothing to {instance.provider}; remove it."
            yield checks.Error(sentence, id="llm.E036")


@checks.register("llm")
def check_single_provider(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """With LLM_PROVIDERS each instance has variables of its own, and a key goes nowhere that isn't said."""
    unread = [name for name, unset in SINGLE_PROVIDER.items() if getattr(settings, name) != unset]
    if not settings.LLM_PROVIDERS or not unread:
        return []
    return [
        checks.Warning(
            f"With LLM_PROVIDERS, {_all_of(unread)} {'is' if len(unread) == 1 else 'are'} not used.",
            f"Give each instance variables of its own, such as {variable(settings.LLM_PROVIDERS[0].name, 'API_KEY')}.",
            id="llm.W006",
        )
    ]


@checks.register("llm")
def check_secrets(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    secrets = {"SECRET_KEY": _secret_key(), "LLM_KEY_PEPPER": settings.LLM_KEY_PEPPER}
    found: list[checks.CheckMessage] = []
    for name, value in secrets.items():
        if not value:
            found.append(checks.Error(f"{name} is not set; put a long random string into .env.", id="llm.E004"))
        elif value.startswith(PLACEHOLDER):
            found.append(
                checks.Error(
                    f"{name} is still the placeholder of .env.example; put a long random string there.", id="llm.E005"
                )
            )
    if secrets["SECRET_KEY"] and secrets["SECRET_KEY"] == secrets["LLM_KEY_PEPPER"]:
        found.append(
            checks.Error("LLM_KEY_PEPPER equals SECRET_KEY; give it a random string of its own.", id="llm.E006")
        )
    return found


@checks.register("llm")
def check_secrets_key(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Calls are served without it, so a development machine isn't warned."""
    key = settings.LLM_SECRETS_KEY
    if key.startswith(PLACEHOLDER):
        sentence = "LLM_SECRETS_KEY is still the placeholder of .env.example; put a long random string there."
        return [checks.Error(sentence, id="llm.E014")]
    if key and len(key) < MIN_SECRETS_KEY_LENGTH:
        sentence = f"LLM_SECRETS_KEY is shorter than {MIN_SECRETS_KEY_LENGTH} characters; make it a long random string."
        return [checks.Error(sentence, id="llm.E012")]
    if key and key in (_secret_key(), settings.LLM_KEY_PEPPER):
        sentence = "LLM_SECRETS_KEY equals SECRET_KEY or LLM_KEY_PEPPER; give it a random string of its own."
        return [checks.Error(sentence, id="llm.E013")]
    return [] if key or not _public_hosts() else [checks.Warning(NO_SECRETS_KEY, id="llm.W004")]


@checks.register("llm", deploy=True)
def check_secrets_key_deployed(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    is_missing = not settings.LLM_SECRETS_KEY and not _public_hosts()
    return [checks.Warning(NO_SECRETS_KEY, id="llm.W004")] if is_missing else []


@checks.register("llm")
def check_kept_replies(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """They are encrypted, and no use to anybody once their key may be used for another request."""
    minutes, hours = settings.LLM_KEPT_REPLY_MINUTES, settings.LLM_IDEMPOTENCY_HOURS
    if minutes and not settings.LLM_SECRETS_KEY:
        sentence = "LLM_KEPT_REPLY_MINUTES needs LLM_SECRETS_KEY, which encrypts the replies; set both or neither."
        return [checks.Error(sentence, id="llm.E040")]
    if minutes > hours * 60:
        sentence = (
            f"LLM_KEPT_REPLY_MINUTES ({minutes}) is longer than LLM_IDEMPOTENCY_HOURS ({hours}); lower the former or "
            "raise the latter."
        )
        return [checks.Error(sentence, id="llm.E041")]
    return []


@checks.register("llm")
def check_debug(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """We define production as a host that others can reach."""
    public = _public_hosts()
    if settings.DEBUG and public:
        return [
            checks.Error(
                f"DEBUG is on while ALLOWED_HOSTS contains {public[0]}; set DEBUG=false, because its error pages "
                "show the settings to anyone.",
                id="llm.E007",
            )
        ]
    return []


@checks.register("llm")
def check_workers(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    is_sqlite = settings.DATABASES["default"]["ENGINE"].endswith("sqlite3")
    if is_sqlite and settings.WEB_WORKERS > 1:
        return [
            checks.Error(
                f"WEB_WORKERS is {settings.WEB_WORKERS}, but SQLite lets one process write at a time; "
                "set WEB_WORKERS=1 or point DATABASE_URL to PostgreSQL.",
                id="llm.E008",
            )
        ]
    return []


@checks.register("llm")
def check_upstreams(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    own = f"{settings.WEB_HOST}:{settings.WEB_PORT}"
    return [
        checks.Error(
            f"{name} points to this gateway itself ({own}), which would call itself endlessly; set it to the "
            "provider's address, or change WEB_PORT.",
            id="llm.E009",
        )
        for name, url in _upstream_urls()
        if _is_own_address(url)
    ]


@checks.register("llm")
def check_timeouts(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    total = settings.LLM_TOTAL_TIMEOUT_SECONDS
    return [
        checks.Error(
            f"{name} ({getattr(settings, name):g}) is longer than LLM_TOTAL_TIMEOUT_SECONDS ({total:g}); lower "
            "the former or raise the latter.",
            id="llm.E010",
        )
        for name in TIMEOUTS_WITHIN_TOTAL
        if getattr(settings, name) > total
    ]


@checks.register("llm")
def check_bodies(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Each bound must be within the next, or what the smaller one allows would always be refused as temporarily too
    much.
    """
    names = ("LLM_MAX_BODY_BYTES", "LLM_BODIES_BYTES_PER_KEY", "LLM_BODIES_BYTES")
    body, all_bodies = settings.LLM_MAX_BODY_BYTES, settings.LLM_BODIES_BYTES
    too_small = checks.Error(
        f"LLM_BODIES_BYTES ({all_bodies}) is less than twice LLM_MAX_BODY_BYTES ({body}), and no account gets more "
        "than half of it; lower the latter or raise the former.",
        id="llm.E032",
    )
    problems: list[checks.CheckMessage] = [too_small] if body <= all_bodies < 2 * body else []
    return problems + [
        checks.Error(
            f"{smaller} ({getattr(settings, smaller)}) is more than {larger} ({getattr(settings, larger)}); "
            "lower the former or raise the latter.",
            id="llm.E030",
        )
        for smaller, larger in pairwise(names)
        if getattr(settings, smaller) > getattr(settings, larger)
    ]


def _upstream_urls() -> list[tuple[str, str]]:
    if settings.LLM_PROVIDERS:
        return [(variable(each.name, "BASE_URL"), each.base_url) for each in settings.LLM_PROVIDERS]
    return [(name, getattr(settings, name)) for name in UPSTREAM_URLS]


def _either(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _all_of(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _is_reported(name: str) -> bool:
    return any(problem.startswith(f"{name} ") for problem in settings.LLM_SETTING_PROBLEMS)


def _secret_key() -> str:
    try:
        return settings.SECRET_KEY
    except ImproperlyConfigured:  # Django's default for an empty list
        return ""


def _public_hosts() -> list[str]:
    return [host for host in settings.ALLOWED_HOSTS if not _is_local_name(host)]


def _is_local_name(host: str) -> bool:
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    return any(address.is_loopback for address in _addresses(name))


def _is_own_address(url: str) -> bool:
    if not url:
        return False
    parts = urlsplit(url)
    if (parts.port or DEFAULT_PORTS.get(parts.scheme)) != settings.WEB_PORT:
        return False
    host = parts.hostname or ""
    is_here = _is_local_name(host) or any(address.is_unspecified for address in _addresses(host))
    return host == settings.WEB_HOST or (is_here and _listens_locally())


def _listens_locally() -> bool:
    own = _addresses(settings.WEB_HOST)
    return _is_local_name(settings.WEB_HOST) or any(address.is_unspecified for address in own)


def _addresses(host: str) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The address that the text is, if it is one; names aren't resolved."""
    try:
        yield ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return
