"""The fields of a request in any dialect: their spelling, the few that all dialects share, and changes to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import orjson

from llm.dialects.base import ParsedRequest
from llm.dialects.json_text import replaced, with_members
from llm.dialects.usage_figures import MAX_TOKENS
from llm.errors import InvalidRequest

MAX_MODEL_CHARACTERS = 200

_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Shape:
    """The keys of an object that we read, and the shapes of nested objects, single or in a list."""

    keys: frozenset[str]
    inside: Mapping[str, Shape] = field(default_factory=dict)
    _by_folded: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_folded", {key.casefold(): key for key in self.keys})

    def refuse_other_cases(self, value: Any, path: str = "") -> None:
        """Raises InvalidRequest for a key that differs from one of ours only by case.

        To us it is an unknown field; to a server that reads names in any case it is the known one.
        """
        if type(value) is list:
            for each in value:
                self.refuse_other_cases(each, path)
            return
        if type(value) is not dict:
            return
        if not value.keys() <= self.keys:
            self._refuse_keys(value, path)
        for name, inner_shape in self.inside.items():
            if (inner := value.get(name)) is not None and type(inner) is not str:
                inner_shape.refuse_other_cases(inner, f"{path}{name}.")

    def _refuse_keys(self, value: Mapping[str, Any], path: str) -> None:
        for key in value:
            known = self._by_folded.get(key.casefold())
            if known is not None and key not in self.keys:
                raise InvalidRequest(
                    f"Unknown field '{path}{key[:60]}'. Field names are case-sensitive: use '{path}{known}'.",
                    param=f"{path}{known}",
                )


def shape(*keys: str, **inside: Shape) -> Shape:
    return Shape(frozenset((*keys, *inside)), inside)


def checked_model(model: Any) -> str:
    """The requested name, "" if there is none."""
    if model is None:
        return ""
    if not isinstance(model, str) or not model:
        raise InvalidRequest("'model' must be the name of a model.", param="model")
    if len(model) > MAX_MODEL_CHARACTERS:
        raise InvalidRequest(f"'model' is longer than {MAX_MODEL_CHARACTERS} characters.", param="model")
    if _CONTROL_CHARACTER.search(model):
        raise InvalidRequest("'model' contains a control character.", param="model")
    return model


def read_flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidRequest(f"'{name}' must be true or false.", param=name)


def read_number(body: Mapping[str, Any], name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse_type(name, "a number")
    return float(value)


def read_string(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        refuse_type(name, "a string")
    return value


def read_list(body: Mapping[str, Any], name: str) -> list[Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, list):
        refuse_type(name, "a list")
    return value or []


def read_object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is not None and not isinstance(value, dict):
        refuse_type(name, "an object")
    return value or {}


def refuse_type(param: str, expected: str) -> NoReturn:
    raise InvalidRequest(f"'{param}' must be {expected}.", param=param)


def refuse_fields(body: Mapping[str, Any], untranslatable: Mapping[str, tuple[Any, ...]]) -> None:
    """Raises InvalidRequest for anything that can't be carried into another dialect.

    untranslatable: field -> the values that request nothing, besides null.
    """
    for name, neutral in untranslatable.items():
        value = body.get(name)
        if value is not None and value not in neutral:
            refuse_unsupported(name)


def refuse_unsupported(param: str) -> NoReturn:
    raise InvalidRequest(f"This model does not support '{param}'.", param=param)


def renamed_model(request: ParsedRequest, upstream_model: str) -> dict[str, Any]:
    """The change for an upstream that has another name for the model."""
    return {} if request.body.get("model") == upstream_model else {"model": upstream_model}


def changed_body(request: ParsedRequest, changes: Mapping[str, Any]) -> bytes:
    """The request as sent, except for the values of these members of its object."""
    if not changes:
        return request.raw
    if request.body and request.body.keys().isdisjoint(changes):
        return with_members(request.raw, changes)
    if changes.keys() <= request.members.keys():
        # A large body isn't serialised again.
        values = {request.members[name]: orjson.dumps(value) for name, value in changes.items()}
        return replaced(request.raw, values)
    return orjson.dumps({**request.body, **changes})


def token_count(value: Any) -> int | None:
    """A field's value as a number of tokens: 1000.0 is 1000. None if it bounds nothing: null, -1, a text, 10**30."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def output_maximum(value: Any) -> int | None:
    """A field's value as an output maximum; None if it bounds nothing. No provider accepts 0, so it counts as 1."""
    count = token_count(value)
    return None if count is None else max(1, count)
