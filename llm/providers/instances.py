"""Provider instances: which class is called where, with which keys, and under which name its calls are booked.

They come from LLM_PROVIDERS and each one's own variables. Without LLM_PROVIDERS each registered provider is an instance
under its own name, configured by the variables of the single provider, each of which belongs to one instance alone.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from llm.enums import Dialect
from llmproject.providers import InstanceSettings, variable

OPENAI, ANTHROPIC, COMPATIBLE = "openai", "anthropic", "openai_compatible"
OPENAI_URL = "https://api.openai.com/v1"
ANTHROPIC_URL = "https://api.anthropic.com"

OPENAI_DIALECTS: Mapping[str, Dialect] = {
    "chat": Dialect.OPENAI_CHAT,
    "embeddings": Dialect.OPENAI_EMBEDDINGS,
    "completions": Dialect.OPENAI_COMPLETIONS,
    "responses": Dialect.OPENAI_RESPONSES,
}
"""By the words of LLM_COMPATIBLE_DIALECTS and LLM_PROVIDER_..._DIALECTS."""

_COMPATIBLE_DIALECTS = ("chat", "embeddings")
_ID_BYTES = 6
_REMEMBERED_ACCOUNTS = 4096


@dataclass(frozen=True, slots=True)
class Credential:
    """One key of an instance. id: what the books call it, a keyed hash; empty where there is no key."""

    id: str = ""
    api_key: str = field(default="", repr=False)
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Instance:
    """provider: its class. booked_as: the provider of its rows, by which prices, reports and reconciliation go.

    credentials: at least one. dialects: of OpenAI's, those that its server speaks. disconnect_policy: empty for that of
    LLM_DISCONNECT_POLICY. lacks: the variable without which it can't be called; empty where nothing is missing.
    """

    name: str
    provider: str
    booked_as: str
    base_url: str = ""
    credentials: tuple[Credential, ...] = (Credential(),)
    dialects: frozenset[Dialect] = frozenset((Dialect.OPENAI_CHAT,))
    developer_role: str = "developer"
    max_output_tokens: int = 0
    disconnect_policy: str = ""
    lacks: str = ""

    def credentials_for(self, account_id: int) -> tuple[Credential, ...]:
        """All of them, the account's own first: it keeps it, since providers cache prompts per organisation."""
        return self.credentials if len(self.credentials) == 1 else _in_order(self.credentials, account_id)

    def credential(self, credential_id: str, *, account_id: int) -> Credential:
        """The one that the books name; the account's own where it has been replaced, or was not yet recorded."""
        first, *others = self.credentials_for(account_id)
        return next((each for each in (first, *others) if each.id == credential_id), first)

    def policy(self, policies: Mapping[str, str]) -> str:
        """What becomes of its calls whose callers hang up. policies: LLM_DISCONNECT_POLICY."""
        named = (policies[name] for name in (self.name, self.provider) if name in policies)
        return self.disconnect_policy or next(named, policies[""])


class Instances:
    """All of them, by name. secrets: every key of every one."""

    def __init__(self, instances: Iterable[Instance]) -> None:
        self.all = tuple(instances)
        self._by_name = {each.provider: each for each in reversed(self.all)} | {each.name: each for each in self.all}
        keys = {credential.api_key for instance in self.all for credential in instance.credentials}
        self.secrets = tuple(sorted(keys - {""}))

    def find(self, name: str) -> Instance | None:
        """The instance of that name; for a provider's name that no instance has, the first of that provider."""
        return self._by_name.get(name)


@dataclass(frozen=True, slots=True)
class SingleSettings:
    """The variables of the single provider, for where there is no LLM_PROVIDERS."""

    default: str
    openai_key: str = field(repr=False)
    anthropic_key: str = field(repr=False)
    compatible_key: str = field(repr=False)
    base_url: str
    openai_url: str
    anthropic_url: str
    dialects: tuple[str, ...]
    developer_role: str
    max_tokens: int


@lru_cache(maxsize=16)
def named_instances(named: Sequence[InstanceSettings], pepper: str) -> Instances:
    return Instances(_of_settings(each, pepper) for each in named)


@lru_cache(maxsize=16)
def single_instances(single: SingleSettings, providers: tuple[str, ...], pepper: str) -> Instances:
    """One for each registered provider."""
    keys, urls = _single_keys(single), _single_urls(single)
    return Instances(
        Instance(
            name,
            name,
            booked_as=name,
            base_url=urls.get(name, single.base_url),
            credentials=_credentials((keys.get(name, ""),), (1,), pepper),
            dialects=_dialects(name, () if name == OPENAI else single.dialects),
            developer_role=single.developer_role if name == COMPATIBLE else "developer",
            max_output_tokens=single.max_tokens,
            lacks=_missing_of_single(name, keys, single.base_url),
        )
        for name in providers
    )


def _single_keys(single: SingleSettings) -> dict[str, str]:
    """OPENAI_API_KEY is the key of one server: what a local one is content with is nothing for api.openai.com."""
    is_of_compatible = single.default == COMPATIBLE and not single.compatible_key
    return {
        OPENAI: "" if is_of_compatible else single.openai_key,
        ANTHROPIC: single.anthropic_key,
        COMPATIBLE: single.openai_key if is_of_compatible else single.compatible_key,
    }


def _single_urls(single: SingleSettings) -> dict[str, str]:
    return {OPENAI: single.openai_url, ANTHROPIC: single.anthropic_url}


def _missing_of_single(name: str, keys: Mapping[str, str], base_url: str) -> str:
    values = {OPENAI: keys[OPENAI], ANTHROPIC: keys[ANTHROPIC], COMPATIBLE: base_url}
    variables = {OPENAI: "OPENAI_API_KEY", ANTHROPIC: "ANTHROPIC_API_KEY", COMPATIBLE: "LLM_BASE_URL"}
    return "" if values.get(name, "-") else variables[name]


def _of_settings(named: InstanceSettings, pepper: str) -> Instance:
    default_urls = {OPENAI: OPENAI_URL, ANTHROPIC: ANTHROPIC_URL}
    return Instance(
        named.name,
        named.provider,
        booked_as=named.booked_as or named.provider,
        base_url=named.base_url or default_urls.get(named.provider, ""),
        credentials=_credentials(named.api_keys or ("",), named.weights or (1,), pepper),
        dialects=_dialects(named.provider, named.dialects),
        developer_role=named.developer_role or "developer",
        max_output_tokens=named.max_tokens,
        disconnect_policy=named.disconnect_policy,
        lacks=_missing_of_named(named),
    )


def _missing_of_named(named: InstanceSettings) -> str:
    if named.provider in (OPENAI, ANTHROPIC) and not named.api_keys:
        return variable(named.name, "API_KEY")
    return variable(named.name, "BASE_URL") if named.provider == COMPATIBLE and not named.base_url else ""


def _credentials(keys: Sequence[str], weights: Sequence[int], pepper: str) -> tuple[Credential, ...]:
    return tuple(
        Credential(_credential_id(key, pepper), key, weight) for key, weight in zip(keys, weights, strict=True)
    )


def _credential_id(api_key: str, pepper: str) -> str:
    """Stays the same whatever order the keys are written in, and tells nobody whether a guess was right."""
    if not api_key:
        return ""
    salt = hashlib.sha256(pepper.encode()).digest()
    return hashlib.blake2b(api_key.encode(), key=salt, digest_size=_ID_BYTES).hexdigest()


def _dialects(provider: str, words: Sequence[str]) -> frozenset[Dialect]:
    """OpenAI speaks all of its own, of other servers the operator says it; chat is understood."""
    usual = tuple(OPENAI_DIALECTS) if provider == OPENAI else _COMPATIBLE_DIALECTS
    return frozenset(OPENAI_DIALECTS[word] for word in ("chat", *(words or usual)))


@lru_cache(maxsize=_REMEMBERED_ACCOUNTS)
def _in_order(credentials: tuple[Credential, ...], account_id: int) -> tuple[Credential, ...]:
    """Weighted rendezvous hashing: another key or weight moves only as many accounts as it must."""
    return tuple(sorted(credentials, key=lambda each: _distance(each, account_id)))


def _distance(credential: Credential, account_id: int) -> float:
    if not credential.weight:
        return math.inf
    digest = hashlib.blake2b(f"{account_id}:{credential.id}".encode(), digest_size=8).digest()
    return -math.log((int.from_bytes(digest) + 1) / 2**64) / credential.weight
