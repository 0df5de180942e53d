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
from llm.providers.transport import NeverSent

SHORTEST_SECRET = 16
"""What is shorter than any provider's key is a word (Ollama takes any as its key): striking it out would only maim."""

_CALLERS_BUSINESS = frozenset((400, 404, 409, 413, 415, 422))
_KEPT_STATUSES = frozenset((400, 404, 413, 422))
_SURELY_UNDONE = frozenset((401, 402, 403, 500, 503, 529))
_PASSING = frozenset((500, 503, 529))
_MOST_CHARACTERS = 1000
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


def _of_status(status: int, error: Exception, *, provider: str, secret: str) -> UpstreamError:
    refusal = _fields(error)
    if status == 429 and refusal.get("code") == "insufficient_quota":
        return UpstreamFailed(f"The provider “{provider}” has no quota left for this gateway.")
    if status == 429:
        message = f"The provider “{provider}” is limiting our rate. Try again shortly."
        limited = UpstreamRateLimited(message, retry_after_s=_retry_after_s(error))
        limited.is_passing = True
        return limited
    if status in _CALLERS_BUSINESS and isinstance(refusal.get("message"), str):
        return UpstreamRejected(
            _without_secrets(str(refusal["message"]), secret),
            code=_plain(refusal.get("code"), secret),
            param=_plain(refusal.get("param"), secret),
            http_status=status if status in _KEPT_STATUSES else 400,
        )
    may_have_worked = status >= 500 and status not in _SURELY_UNDONE
    failed = UpstreamFailed(f"The provider “{provider}” failed (status {status}).", may_have_worked=may_have_worked)
    failed.is_passing = status in _PASSING
    return failed


def _fields(error: Exception) -> Mapping[str, object]:
    """The upstream's error object, of which only known members are taken over; OpenAI's SDK unwraps it itself."""
    body = getattr(error, "body", None)
    if not isinstance(body, dict):
        return {}
    inner = body.get("error", body)
    return inner if isinstance(inner, dict) else {}


def _without_secrets(text: str, secret: str) -> str:
    """An upstream's words about the caller's own request, with nothing in them that could be a key."""
    if len(secret) >= SHORTEST_SECRET:
        text = text.replace(secret, "[redacted]")
    return _LOOKS_LIKE_A_KEY.sub("[redacted]", text)[:_MOST_CHARACTERS]


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
