"""What an upstream's refusal says, in any form, and whose fault it is.

A machine-readable code decides if there is one. The tables of message beginnings below are for providers without codes;
they may only move a refusal from the caller to us, or let another target of the route try. They never make a caller
pay.

Sources, read 2026-11:
- OpenAI: platform.openai.com/docs/guides/error-codes; anthropic: docs.anthropic.com/en/api/errors.
- "Your credit balance is too low": anthropics/claude-code issue 66314. "This organization has been disabled": 72457.
- "Your account is not active": RamiAwar/dataline 175. "Billing hard limit": bajrangCoder/acode-plugin-chatgpt 19.
- OpenRouter's moderation, a 403 with `metadata`: openrouter.ai/docs/api/reference/errors-and-debugging.
- Gemini's and xAI's wrong key, a 400 with both: continuedev/continue 10290 and 10778.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from llm.providers.redaction import without_invisible

_MAX_CHARACTERS = 10_000
"""More than a caller is told, so that a key isn't cut in two before it is searched for."""

_MAX_PLAIN_CHARACTERS = 1000
# Servers answer "404 page not found" to an unknown path: it isn't about a request.
_BARE_STATUS = re.compile(
    r"(?:error:? *)?(?:\d{3} *)?(?:"
    + "|".join(re.escape(phrase) for phrase in ("page not found", *(status.phrase for status in HTTPStatus)))
    + r")[.!]?",
    re.IGNORECASE,
)

# Members of an error object with text for people; the first one present is used.
_WORDS = ("message", "msg", "detail", "error", "errors", "error_description", "title", "description")
_STATUSES = ("code", "status", "status_code", "statusCode", "http_status", "http_code")
_MAX_DEPTH = 4
_MAX_LISTED = 5

KEY, CREDIT, ACCOUNT = "key", "credit", "account"
"""What the operator must fix: a refused key, spent money, a closed or restricted account."""

_FAULT_STATUSES = {401: KEY, 402: CREDIT, 403: ACCOUNT}
_FAULT_CODES = {
    "account_deactivated": ACCOUNT,
    "access_terminated": ACCOUNT,
    "organization_restricted": ACCOUNT,
    "authentication_error": KEY,
    "invalid_api_key": KEY,
    "api_key_invalid": KEY,
    "billing_error": CREDIT,
    "billing_hard_limit_reached": CREDIT,
    "billing_not_active": CREDIT,
    "budget_exceeded": CREDIT,
    "insufficient_quota": CREDIT,
    "insufficient_balance": CREDIT,
}
# With a 403 these mean that the caller's input was flagged, not that our account is refused.
_MODERATION_FIELDS = ("reasons", "flagged_input")
_MODERATION_CODES = frozenset(("content_filter", "content_policy_violation"))
_ANTHROPIC = {
    "your credit balance is too low": CREDIT,
    "you have reached your specified api usage limits": CREDIT,
    "this organization has been disabled": ACCOUNT,
    "invalid x-api-key": KEY,
}
_OPENAI = {
    "billing hard limit has been reached": CREDIT,
    "you exceeded your current quota": CREDIT,
    "your account is not active": CREDIT,
    "your openai account has been deactivated": ACCOUNT,
    "your organization must be verified": ACCOUNT,
    "incorrect api key provided": KEY,
}
_OTHERS = {
    "api key not valid": KEY,  # Gemini
    "api key not found": KEY,  # Gemini
    "insufficient balance": CREDIT,  # DeepSeek
    "insufficient credits": CREDIT,  # OpenRouter
    "budget has been exceeded": CREDIT,  # LiteLLM
}
OPERATOR_OPENINGS: Mapping[str, Mapping[str, str]] = {
    "anthropic": _ANTHROPIC,
    "openai": _OPENAI,
    # It may be followed by any of them.
    "": _ANTHROPIC | _OPENAI | _OTHERS,
}
"""Provider -> how its messages about the operator's own account begin, in lower case; "" for all other providers."""

_TARGET_STATUSES = frozenset((404, 413))
_TARGET_CODES = frozenset(
    (
        "context_length_exceeded",
        "exceed_context_size_error",
        "model_not_available",
        "model_not_found",
        "not_found_error",
        "request_too_large",
        "unsupported_parameter",
        "unsupported_value",
    )
)
TARGET_OPENINGS = (
    "prompt is too long",  # Anthropic
    "input length and `max_tokens` exceed context limit",  # Anthropic
    "this model's maximum context length",  # OpenAI, vLLM
    "the request exceeds the available context size",  # llama.cpp
    "max_tokens is too large",  # OpenAI
)
"""How messages begin about what only this model can't do; another one may."""


@dataclass(frozen=True, slots=True)
class UpstreamRefusal:
    """message: "" if the upstream gave none, otherwise without control and invisible characters.

    codes: all of its identifiers, in lower case. status: the HTTP status in its text. is_moderated: the caller's input
    was flagged.
    """

    message: str = ""
    code: object = None
    param: object = None
    codes: frozenset[str] = frozenset()
    status: int | None = None
    is_moderated: bool = False


def read_refusal(body: object) -> UpstreamRefusal:
    """From an answer's JSON, whether or not an SDK has unwrapped it, or from its plain text."""
    if isinstance(body, list) and len(body) == 1:
        body = body[0]  # Gemini
    if not isinstance(body, Mapping):
        return UpstreamRefusal(without_invisible(_collect_words(body))[:_MAX_CHARACTERS])
    inner = body.get("error", body)
    fields: Mapping[str, Any] = inner if isinstance(inner, Mapping) else body
    named = (fields.get("code"), fields.get("type"), fields.get("status"), *_reasons_in(fields.get("details")))
    codes = frozenset(name.lower() for name in named if isinstance(name, str))
    return UpstreamRefusal(
        # Cleaned before truncation, so that removed characters take no room.
        message=without_invisible(_collect_words(body.get("error") or body))[:_MAX_CHARACTERS],
        code=fields.get("code"),
        param=fields.get("param"),
        codes=codes,
        status=next((status for name in _STATUSES if (status := _status_of(fields.get(name, body.get(name))))), None),
        is_moderated=not codes.isdisjoint(_MODERATION_CODES) or _is_about_input(fields.get("metadata")),
    )


def words_of_text(text: str, content_type: str) -> str:
    """The message of a refusal that isn't JSON, such as vLLM's or a proxy's; "" for an HTML page, or a bare status."""
    words = text.strip()
    kind = content_type.partition(";")[0].strip().lower()
    # Truncated or oversized JSON can't be parsed, but isn't a message either.
    is_markup = "html" in kind or "xml" in kind or words.startswith(("<", "{", "["))
    if is_markup or len(words) > _MAX_PLAIN_CHARACTERS or _BARE_STATUS.fullmatch(words):
        return ""
    return words


def operator_fault(refusal: UpstreamRefusal, status: int, *, provider: str) -> str:
    """What the operator must fix; "" if it isn't theirs. Only 4xx statuses say whose fault something is."""
    if not 400 <= status < 500:
        return ""
    for code in refusal.codes & _FAULT_CODES.keys():
        return _FAULT_CODES[code]
    if status in _FAULT_STATUSES and not is_flagged(refusal, status):
        return _FAULT_STATUSES[status]
    message = refusal.message.lower()
    openings = OPERATOR_OPENINGS.get(provider, OPERATOR_OPENINGS[""])
    return next((fault for opening, fault in openings.items() if message.startswith(opening)), "")


def is_flagged(refusal: UpstreamRefusal, status: int) -> bool:
    """Whether the caller's input was flagged, with a status that otherwise refuses our account."""
    return status == 403 and refusal.is_moderated


def is_of_target(refusal: UpstreamRefusal, status: int) -> bool:
    """Whether only this target can't do it: it doesn't have the model, or the request is too much for it."""
    if status in _TARGET_STATUSES or refusal.codes & _TARGET_CODES:
        return True
    return refusal.message.lower().startswith(TARGET_OPENINGS)


def _is_about_input(metadata: object) -> bool:
    return isinstance(metadata, Mapping) and any(metadata.get(name) for name in _MODERATION_FIELDS)


def _status_of(value: object) -> int | None:
    if isinstance(value, str) and len(value) == 3 and value.isdecimal():
        value = int(value)
    return value if type(value) is int and 400 <= value < 600 else None


def _collect_words(value: object, depth: int = 0) -> str:
    if isinstance(value, str):
        return value.strip()
    if depth >= _MAX_DEPTH:
        return ""
    if isinstance(value, list):
        listed = [_collect_words(each, depth + 1) for each in value[:_MAX_LISTED]]
        return "; ".join(each for each in listed if each)
    if not isinstance(value, Mapping):
        return ""
    words = next((words for name in _WORDS if (words := _collect_words(value.get(name), depth + 1))), "")
    place = value.get("loc")
    if words and isinstance(place, list) and place:
        return f"{'.'.join(str(part)[:100] for part in place[:10])}: {words}"  # FastAPI
    return words


def _reasons_in(details: object) -> tuple[object, ...]:
    """Google's `ErrorInfo`."""
    listed = details if isinstance(details, list) else []
    return tuple(each.get("reason") for each in listed[:_MAX_LISTED] if isinstance(each, Mapping))
