"""The provider instances that LLM_PROVIDERS names, each with variables of its own; `.env.example` explains them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from llmproject.env import EnvReader

DIALECTS = ("chat", "completions", "embeddings", "responses")
DEVELOPER_ROLES = ("developer", "system")
DISCONNECT_POLICIES = ("drain", "cancel")

_NAME = re.compile(r"[a-z][a-z0-9]{0,29}")
_EXAMPLE = "main=openai,claude=anthropic"


@dataclass(frozen=True, slots=True)
class InstanceSettings:
    """What the variables say of one instance. What isn't set is empty.

    provider: a registered one. weights: as many as keys. booked_as: under which provider its calls are booked.
    """

    name: str
    provider: str
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    weights: tuple[int, ...] = ()
    base_url: str = ""
    dialects: tuple[str, ...] = ()
    developer_role: str = ""
    max_tokens: int = 0
    disconnect_policy: str = ""
    booked_as: str = ""

    @property
    def given(self) -> frozenset[str]:
        """The ends of the variables that are set, of those that not every provider knows."""
        values = {"DIALECTS": self.dialects, "DEVELOPER_ROLE": self.developer_role, "MAX_TOKENS": self.max_tokens}
        return frozenset(option for option, value in values.items() if value)


def variable(name: str, option: str) -> str:
    """The variable of an instance: LLM_PROVIDER_MAIN_API_KEY."""
    return f"LLM_PROVIDER_{name.upper()}_{option}"


def read_instances(read: EnvReader) -> tuple[InstanceSettings, ...]:
    """In their order; what can't be read is left out and reported."""
    return tuple(_read_instance(read, name, provider) for name, provider in _named(read))


def _named(read: EnvReader) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for part in read.names("LLM_PROVIDERS"):
        name, _, provider = (piece.strip() for piece in part.partition("="))
        if not _NAME.fullmatch(name) or not provider:
            read.report(
                f'LLM_PROVIDERS must be a list of name=provider, such as {_EXAMPLE}, not "{part}"; a name is up to 30 '
                "lower-case letters and digits, the first of them a letter."
            )
        if name in seen:
            read.report(f'LLM_PROVIDERS contains the name "{name}" twice; give each instance a name of its own.')
            continue
        seen.add(name)
        # The variables of a misspelled name are no second mistake.
        if _NAME.fullmatch(name.lower()):
            yield name.lower(), provider


def _read_instance(read: EnvReader, name: str, provider: str) -> InstanceSettings:
    keys = _read_keys(read, name)
    return InstanceSettings(
        name,
        provider,
        api_keys=keys,
        weights=_read_weights(read, name, len(keys)),
        base_url=read.url(variable(name, "BASE_URL")),
        dialects=tuple(read.choices(variable(name, "DIALECTS"), DIALECTS, default="")),
        developer_role=read.choice(variable(name, "DEVELOPER_ROLE"), ("", *DEVELOPER_ROLES), default=""),
        max_tokens=read.whole(variable(name, "MAX_TOKENS"), 0),
        disconnect_policy=read.choice(variable(name, "DISCONNECT_POLICY"), ("", *DISCONNECT_POLICIES), default=""),
        booked_as=read.text(variable(name, "BOOKED_AS")),
    )


def _read_keys(read: EnvReader, name: str) -> tuple[str, ...]:
    one, several = variable(name, "API_KEY"), variable(name, "API_KEYS")
    key, keys = read.api_key(one), read.api_keys(several)
    if "," in key:
        read.report(f"{one} contains a comma; several keys belong in {several}.")
    if key and keys:
        read.report(f"Both {one} and {several} are set; set the second alone for several keys.")
    if len({*keys}) < len(keys):
        read.report(f"{several} contains a key twice; give it a larger weight in {variable(name, 'KEY_WEIGHTS')}.")
    return tuple(dict.fromkeys(keys)) or ((key,) if key else ())


def _read_weights(read: EnvReader, name: str, count: int) -> tuple[int, ...]:
    """One for each key, all equal where none are set."""
    setting = variable(name, "KEY_WEIGHTS")
    weights = read.whole_numbers(setting, maximum=1000)
    if not weights:
        return (1,) * count
    if len(weights) != count or not any(weights):
        read.report(
            f"{setting} must have one weight for each key of {variable(name, 'API_KEYS')}, not all of them 0: there "
            f"are {count} different keys and {len(weights)} weights."
        )
        return (1,) * count
    return tuple(weights)
