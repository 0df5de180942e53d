"""From whatever an SDK raises to our own errors. Never an upstream's own text: it can carry our key."""

from __future__ import annotations

from collections.abc import Iterator

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

_CALLERS_BUSINESS = frozenset((400, 404, 409, 413, 415, 422))
_SURELY_UNDONE = frozenset((401, 402, 403, 500, 503, 529))


def upstream_error(error: Exception, *, provider: str) -> UpstreamError:
    """What this failure means. `may_have_worked` is False only where the upstream surely generated nothing.

    error: an exception of an SDK, of httpx2, or of a provider's own code.
    """
    if isinstance(error, UpstreamError):
        return error
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return _from_status(status, error, provider=provider)
    causes = tuple(_chain(error))
    if any(isinstance(cause, NeverSent) for cause in causes):
        return UpstreamUnreachable(f"The provider “{provider}” can't be reached. Try again shortly.")
    if any(isinstance(cause, httpx2.TimeoutException | TimeoutError) for cause in causes):
        return UpstreamTimeout(f"The provider “{provider}” did not answer in time.", may_have_worked=True)
    return UpstreamFailed(f"The provider “{provider}” broke off before its answer was complete.", may_have_worked=True)


def _from_status(status: int, error: Exception, *, provider: str) -> UpstreamError:
    if status == 429:
        message = f"The provider “{provider}” is limiting our rate. Try again shortly."
        return _seen(UpstreamRateLimited(message, retry_after_s=_retry_after_s(error)), status)
    if status in _CALLERS_BUSINESS:
        code, param = _safe_code(error), _safe_param(error)
        kept = status if status in (400, 413, 422) else 400
        message = f"The provider “{provider}” refused the request ({code or f'status {status}'})."
        return _seen(UpstreamRejected(message, code=code, param=param, http_status=kept), status)
    undone = status in _SURELY_UNDONE or status < 400
    message = f"The provider “{provider}” failed (status {status})."
    return _seen(UpstreamFailed(message, may_have_worked=not undone), status)


def _seen(error: UpstreamError, status: int) -> UpstreamError:
    error.upstream_status = status
    return error


def _safe_code(error: Exception) -> str | None:
    """The upstream's machine-readable code: short and plain, or not taken over."""
    for value in (getattr(error, "code", None), getattr(error, "type", None)):
        if isinstance(value, str) and _is_plain(value):
            return value
    return None


def _safe_param(error: Exception) -> str | None:
    value = getattr(error, "param", None)
    return value if isinstance(value, str) and _is_plain(value.replace("[", "").replace("]", "")) else None


def _is_plain(value: str) -> bool:
    """An identifier of words, which no key looks like: keys hold digits or capitals, or are long."""
    letters = value.replace("_", "").replace(".", "").replace("-", "")
    return 0 < len(value) <= 50 and letters.isascii() and letters.isalpha() and letters.islower()


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
