"""From whatever an SDK raises to our own errors.

An upstream's text can carry our key. Its words reach a caller only where they are about the caller's own request (a
refusal), and then with everything struck out that looks like a key; all other failures are told in our own words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import httpx2

from llm.errors import (
    UpstreamError,
    UpstreamFailed,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from llm.providers.redaction import REDACTED, forms_of
from llm.providers.refusals import Refusal, is_of_target, operator_fault, read_refusal
from llm.providers.transport import NeverSent

_CALLERS_BUSINESS = frozenset((400, 404, 409, 413, 415, 422))
_KEPT_STATUSES = frozenset((400, 404, 413, 422))
_KEPT_WITHOUT_WORDS = frozenset((400, 413, 422))
"""A 404 without a word about it is a wrong base URL rather than a missing model."""

SURELY_UNDONE = frozenset((501, 503, 521, 523, 525, 526, 529))
"""Of the statuses from 500 on, those after which nothing can have been generated: not implemented, overloaded (529 at
Anthropic), or Cloudflare's for an origin that it could not connect to. A 500 comes from the middle of the work, a 502
or 504 from somebody who has handed the request on."""
_PASSING = frozenset((408, 503, 521, 523, 529))

_MAX_CHARACTERS = 1000
# A key has a digit somewhere; a parameter's or a function's name (`task_description`) seldom has.
_LOOKS_LIKE_A_KEY = re.compile(r"(?:sk|pk|llm|key)[-_](?=[\w-]{0,100}\d)[\w-]{8,}|(?<=[Bb]earer )\S+")


def upstream_error(error: Exception, *, provider: str, secret: str = "") -> UpstreamError:
    """What this failure means. `may_have_worked` is False only where the upstream surely generated nothing.

    error: an exception of an SDK, of httpx2, or of a provider's own code. secret: our key there, to strike out.
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
    return UpstreamFailed(f"The provider “{provider}” broke off before its answer was whole.", may_have_worked=True)


def error_in_reply(body: object, *, provider: str, secret: str = "") -> UpstreamError | None:
    """What an error object means that came with status 200 and before any answer; None where there is none.

    OpenRouter and others have sent their head already when the model behind them refuses. A number in it is the status
    that it would have had, a code that we know tells it too; of any other error nobody can say what was done before it.
    """
    if not isinstance(body, Mapping) or not (body.get("error") or body.get("object") == "error"):
        return None
    refusal = read_refusal(body)
    status = _status_in(refusal)
    if status is None:
        return None
    failure = _of_refusal(status, refusal, None, provider=provider, secret=secret)
    failure.upstream_status = 200
    return failure


def _of_status(status: int, error: Exception, *, provider: str, secret: str) -> UpstreamError:
    retry_after_s = _retry_after_s(error)
    return _of_refusal(
        status, read_refusal(getattr(error, "body", None)), retry_after_s, provider=provider, secret=secret
    )


def _of_refusal(
    status: int, refusal: Refusal, retry_after_s: float | None, *, provider: str, secret: str
) -> UpstreamError:
    if fault := operator_fault(refusal, status, provider=provider):
        failed = UpstreamFailed(f"The provider “{provider}” does not accept this gateway's account.")
        failed.operator_fault = fault
        return failed
    if status == 429:
        message = f"The provider “{provider}” is limiting our rate. Try again shortly."
        limited = UpstreamRateLimited(message, retry_after_s=retry_after_s)
        limited.is_passing = True
        return limited
    if status in _KEPT_WITHOUT_WORDS or (status in _CALLERS_BUSINESS and refusal.message):
        return _rejected(status, refusal, provider=provider, secret=secret)
    may_have_worked = status >= 500 and status not in SURELY_UNDONE
    failed = UpstreamFailed(f"The provider “{provider}” failed (status {status}).", may_have_worked=may_have_worked)
    failed.is_passing = status in _PASSING
    failed.is_server_error = status >= 500
    return failed


def _rejected(status: int, refusal: Refusal, *, provider: str, secret: str) -> UpstreamRejected:
    words = _without_secrets(refusal.message, secret)
    rejected = UpstreamRejected(
        words or f"The provider “{provider}” refused the request (status {status}).",
        code=_plain(refusal.code, secret),
        param=_plain(refusal.param, secret),
        http_status=status if status in _KEPT_STATUSES else 400,
    )
    rejected.is_of_target = is_of_target(refusal, status)
    return rejected


def _status_in(refusal: Refusal) -> int | None:
    """The status that an error inside a 200 stands for."""
    if isinstance(refusal.code, int) and 400 <= refusal.code < 600:
        return refusal.code
    if isinstance(refusal.code, str) and refusal.code.isdecimal() and 400 <= int(refusal.code[:4]) < 600:
        return int(refusal.code)
    return next((_STATUS_OF_CODE[code] for code in sorted(refusal.codes) if code in _STATUS_OF_CODE), None)


_STATUS_OF_CODE = {
    "authentication_error": 401,
    "billing_error": 402,
    "context_length_exceeded": 400,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "invalid_request_error": 400,
    "model_not_found": 404,
    "not_found_error": 404,
    "overloaded_error": 529,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
}


def _without_secrets(text: str, secret: str) -> str:
    """An upstream's words about the caller's own request, with nothing in them that could be a key."""
    return _LOOKS_LIKE_A_KEY.sub(REDACTED, forms_of(secret).strike_out_of_text(text))[:_MAX_CHARACTERS]


def _plain(value: object, secret: str) -> str | None:
    """A short identifier without anything in it that could be a key."""
    if not isinstance(value, str) or not 0 < len(value) <= 100 or not (value.isascii() and value.isprintable()):
        return None
    return value if value == _without_secrets(value, secret) else None


def _retry_after_s(error: Exception) -> float | None:
    response = getattr(error, "response", None)
    if response is None:
        return None
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= 3600 else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__
