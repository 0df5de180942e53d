"""From anything an SDK raises to our own errors.

An upstream's text can contain our key. Its words reach a caller only if they are about the caller's own request (a
refusal), and then with everything removed that looks like a key; all other failures are described in our own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
import structlog

from llm.dialects.anthropic_messages import usage as anthropic_usage
from llm.dialects.error_shapes import says_error
from llm.dialects.money_fields import read_upstream_cost
from llm.dialects.openai_chat import usage as openai_usage
from llm.dialects.openai_responses import usage as responses_usage
from llm.dialects.usage_figures import read_service, reports_tool_units
from llm.errors import (
    RequestUnwritten,
    UpstreamError,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from llm.providers.redaction import REDACTED, forms_of
from llm.providers.refusals import (
    UpstreamRefusal,
    is_flagged,
    is_of_target,
    operator_fault,
    read_refusal,
    words_of_text,
)
from llm.providers.transport import NeverSent
from llm.types import Reading, TokenCounts

log = structlog.get_logger("llm.calls")

_CALLERS_BUSINESS = frozenset((400, 404, 409, 413, 415, 422))
_KEPT_STATUSES = frozenset((400, 403, 404, 409, 413, 415, 422))
_KEPT_WITHOUT_WORDS = frozenset((400, 413, 422))
"""Without a message, a 404 more likely means a wrong base URL than a missing model."""

SURELY_UNDONE = frozenset((501, 503, 521, 523, 525, 526, 529))
"""Statuses of 500 and above after which certainly nothing was generated: not implemented, overloaded (529 at
Anthropic), or Cloudflare's for an origin that it couldn't connect to. A 500 comes from the middle of the work, a 502 or
504 from a server that had passed the request on.
"""
_PASSING = frozenset((408, 503, 521, 523, 529))

_MAX_CHARACTERS = 1000
_LONGEST_RETRY_AFTER_S = 3600
_PLAIN_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
# A key contains a digit; a parameter's or a function's name (`task_description`) seldom does.
_LOOKS_LIKE_A_KEY = re.compile(r"(?:sk|pk|llm|key)[-_](?=[\w-]{0,100}\d)[\w-]{8,}|(?<=[Bb]earer )\S+")


def upstream_error(error: Exception, *, provider: str, secret: str = "") -> UpstreamError:
    """What this failure means. `may_have_worked` is False only if the upstream certainly generated nothing.

    error: an exception of an SDK, of httpx2, or of a provider's own code. secret: our key there, to be removed.
    """
    if isinstance(error, UpstreamError):
        return error
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        failure = _of_status(status, error, provider=provider, secret=secret)
        failure.upstream_status = status
        return failure
    causes = tuple(_chain(error))
    if any(isinstance(cause, NeverSent) for cause in causes):
        return UpstreamUnreachable(f"The provider “{provider}” can't be reached. Try again shortly.")
    if any(isinstance(cause, httpx2.TimeoutException | TimeoutError) for cause in causes):
        return UpstreamTimeout(f"The provider “{provider}” did not answer in time.", may_have_worked=True)
    return UpstreamFailed(f"The provider “{provider}” ended its response before it was complete.", may_have_worked=True)


@contextmanager
def before_sending(provider: str) -> Iterator[None]:
    """An exception raised here ends a call of which no byte was sent to the upstream: nothing is charged for it."""
    try:
        yield
    except UpstreamError:
        raise
    except Exception as error:
        # The exception's text may contain a prompt, so only its class is logged.
        log.error("provider.request_unwritten", provider=provider, error=type(error).__name__)  # noqa: TRY400
        raise RequestUnwritten(
            f"This request could not be encoded for the provider “{provider}”, so it was not sent."
        ) from error


def refuses_stream_options(failure: UpstreamError) -> bool:
    """Whether a server doesn't know the field by which the gateway asks for the usage of a stream."""
    words = f"{failure.param} {failure.message}"
    return isinstance(failure, UpstreamRejected) and failure.http_status in (400, 422) and "stream_options" in words


def misses_reasoning(failure: UpstreamError) -> bool:
    """Whether a server wants back the thinking before a tool call, as DeepSeek and Moonshot do."""
    is_refusal = isinstance(failure, UpstreamRejected) and failure.http_status in (400, 422)
    return is_refusal and "reasoning_content" in failure.message


def error_in_reply(body: object, *, provider: str, secret: str = "") -> UpstreamError | None:
    """What an error object means that came with status 200 and before any answer; None if it isn't one.

    OpenRouter and others have already sent their headers when the model behind them refuses. A number in it is the
    status that it would have had, and so is a known code; for any other error its message decides what is wrong with
    the request. Usage before the error is charged only if the upstream reports it.
    """
    if isinstance(body, list) and len(body) == 1:
        body = body[0]  # Gemini
    if not isinstance(body, Mapping) or not says_error(body):
        return None
    refusal = read_refusal(body)
    status = _status_in(refusal)
    if status is None:
        return None
    failure = _of_refusal(status, refusal, None, provider=provider, secret=secret)
    failure.upstream_status = 200
    failure.reading = reading_in(body)
    if failure.reading is not None:
        failure.may_have_worked, failure.is_passing = True, False
    return failure


def reading_in(body: object) -> Reading | None:
    """The usage that an error reports; None if it reports none, or zero."""
    usage = body.get("usage") if isinstance(body, Mapping) else None
    if not isinstance(body, Mapping) or not isinstance(usage, Mapping):
        return None
    counts, absurd_usage = _read_usage(body, usage)
    if absurd_usage is None and counts in (None, TokenCounts()):
        return None
    return Reading(
        counts=counts,
        absurd_usage=absurd_usage,
        model=_text(body.get("model")),
        response_id=_text(body.get("id")),
        service=read_service(body, usage),
        is_final=True,
        upstream_cost=read_upstream_cost(body),
        reports_tools=reports_tool_units(usage),
    )


def _read_usage(
    body: Mapping[str, Any], usage: Mapping[str, Any]
) -> tuple[TokenCounts | None, Mapping[str, Any] | None]:
    """In any dialect."""
    if "input_tokens" not in usage:
        return openai_usage.read_usage(usage)
    if body.get("object") == "response" or "input_tokens_details" in usage:
        read = responses_usage.read_usage(body)
        return read.counts, read.absurd
    return anthropic_usage.read_usage(usage)


def _of_status(status: int, error: Exception, *, provider: str, secret: str) -> UpstreamError:
    refusal = read_refusal(_read_document(error))
    return _of_refusal(status, refusal, _retry_after_s(error), provider=provider, secret=secret)


def _read_document(error: Exception) -> object:
    """The answer's content: its JSON, or its text. For both SDKs and our transport alike."""
    body = getattr(error, "body", None)
    if not isinstance(body, str):
        return body
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    return words_of_text(body, headers.get("content-type", ""))


def _of_refusal(
    status: int, refusal: UpstreamRefusal, retry_after_s: float | None, *, provider: str, secret: str
) -> UpstreamError:
    if fault := operator_fault(refusal, status, provider=provider):
        failed = UpstreamFailed(f"The provider “{provider}” does not accept this gateway's account.")
        failed.operator_fault = fault
        return failed
    if status == 429:
        message = f"The provider “{provider}” is rate-limiting this gateway. Try again shortly."
        limited = UpstreamRateLimited(message, retry_after_s=retry_after_s)
        limited.is_passing = True
        return limited
    is_callers = is_flagged(refusal, status) or (status in _CALLERS_BUSINESS and bool(refusal.message))
    if status in _KEPT_WITHOUT_WORDS or is_callers:
        return _rejected(status, refusal, provider=provider, secret=secret)
    may_have_worked = status >= 500 and status not in SURELY_UNDONE
    failed = UpstreamFailed(f"The provider “{provider}” failed (status {status}).", may_have_worked=may_have_worked)
    failed.is_passing = status in _PASSING
    failed.is_server_error = status >= 500
    return failed


def _rejected(status: int, refusal: UpstreamRefusal, *, provider: str, secret: str) -> UpstreamRejected:
    words = _without_secrets(refusal.message, secret)
    rejected = UpstreamRejected(
        words or f"The provider “{provider}” refused the request (status {status}).",
        code=_plain(refusal.code, secret),
        param=_plain(refusal.param, secret),
        http_status=status if status in _KEPT_STATUSES else 400,
    )
    rejected.is_of_target = is_of_target(refusal, status)
    return rejected


def _status_in(refusal: UpstreamRefusal) -> int | None:
    """The status that an error inside a 200 stands for; None if it doesn't say."""
    if refusal.status is not None:
        return refusal.status
    known = next((_STATUS_OF_CODE[code] for code in sorted(refusal.codes) if code in _STATUS_OF_CODE), None)
    return 400 if known is None and refusal.message else known


_STATUS_OF_CODE = {
    "authentication_error": 401,
    "billing_error": 402,
    "api_error": 500,
    "context_length_exceeded": 400,
    "deadline_exceeded": 504,
    "internal": 500,
    "internal_error": 500,
    "internal_server_error": 500,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "invalid_request_error": 400,
    "model_not_found": 404,
    "not_found_error": 404,
    "overloaded_error": 529,
    "permission_denied": 403,
    "permission_error": 403,
    "request_too_large": 413,
    "resource_exhausted": 429,
    "server_error": 500,
    "service_unavailable": 503,
    "timeout": 504,
    "timeout_error": 504,
    "unauthenticated": 401,
    "unavailable": 503,
    "upstream_error": 500,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
}


def _without_secrets(text: str, secret: str) -> str:
    """An upstream's words about the caller's own request, without anything that could be a key."""
    # Not truncated yet: a key cut in the middle may no longer look like one.
    text = forms_of(secret).strike_out_of_text(text[: 20 * _MAX_CHARACTERS])
    return _LOOKS_LIKE_A_KEY.sub(REDACTED, text)[:_MAX_CHARACTERS]


def _plain(value: object, secret: str) -> str | None:
    """A short identifier without anything that could be a key."""
    if not isinstance(value, str) or not 0 < len(value) <= 100 or not (value.isascii() and value.isprintable()):
        return None
    return value if value == _without_secrets(value, secret) else None


def _retry_after_s(error: Exception) -> float | None:
    """When the upstream wants to be asked again, up to an hour from now; None if it gives no usable time."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    if headers is None:
        return None
    milliseconds, after = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    told = (_number(milliseconds, unit=0.001), _number(after), _seconds_until(after))
    return next((seconds for seconds in told if seconds is not None and 0 <= seconds <= _LONGEST_RETRY_AFTER_S), None)


def _number(text: str, *, unit: float = 1.0) -> float | None:
    return float(text) * unit if _PLAIN_NUMBER.fullmatch(text.strip()) else None


def _seconds_until(text: str) -> float | None:
    """Until an HTTP date, negative if it has passed."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
