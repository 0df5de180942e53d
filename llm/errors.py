"""Every failure that a caller can meet. One class per meaning, one renderer per dialect.

    GatewayError
    ├── RequestError           the caller's request is at fault
    │   ├── InvalidRequest     400   ├── InvalidKey        401   ├── PermissionDenied  403
    │   ├── NotFound           404   ├── ModelNotFound     404   ├── MethodNotAllowed  405
    │   ├── RequestTimeout     408   ├── BodyTooLarge      413   ├── ModelUnpriced     400
    │   ├── RateLimited        429   ├── QuotaExceeded     429
    │   ├── IdempotencyKeyUsed 409   └── IdempotencyKeyReused 422
    ├── UpstreamError          the provider failed
    │   ├── UpstreamRejected   400, 403, 404, 413, 422: the caller's business, the status is kept
    │   ├── UpstreamRateLimited 429  ├── UpstreamFailed    502   ├── UpstreamUnreachable 502
    │   └── UpstreamTimeout    504
    └── GatewayFault           we are at fault
        ├── BooksUnavailable  503   ├── ShuttingDown 503   ├── Overloaded 503
        └── InternalError     500

Messages are written for the caller and never contain a key or a prompt; only `UpstreamRejected` has an upstream's text.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from llm.types import Reading

_MAX_CAUSES = 5
_MAX_FRAMES = 20


class GatewayError(Exception):
    """code: stable and machine readable. http_status: what the caller sees.
    may_have_worked: the upstream may have done (and charged) the work, so the caller's SDK must not retry
    automatically.
    """

    code = "internal_error"
    http_status = 500
    retry_after_s: float | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        http_status: int | None = None,
        retry_after_s: float | None = None,
        may_have_worked: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.code
        self.http_status = http_status or self.http_status
        self.retry_after_s = retry_after_s if retry_after_s is not None else self.retry_after_s
        self.may_have_worked = may_have_worked


class RequestError(GatewayError):
    """owner: account and key of a key that is known and doesn't work. limit_id: the limit that the request exceeds."""

    code = "invalid_request"
    http_status = 400
    owner: tuple[int, int] | None = None
    limit_id = 0

    def about_key(self, account_id: int, key_id: int) -> Self:
        self.owner = account_id, key_id
        return self

    def about_limit(self, limit_id: int) -> Self:
        self.limit_id = limit_id
        return self


class InvalidRequest(RequestError):
    pass


class UnboundedError(InvalidRequest):
    """A limit applies, and the call's maximum usage at this target is unknown."""

    code = "limit_not_applicable"


class InvalidKey(RequestError):
    code = "invalid_api_key"
    http_status = 401


class PermissionDenied(RequestError):
    code = "permission_denied"
    http_status = 403


class NotFound(RequestError):
    code = "not_found"
    http_status = 404


class ModelNotFound(RequestError):
    code = "model_not_found"
    http_status = 404


class ModelUnpriced(RequestError):
    """No price is in force for the model, and calls to its provider are refused then: staff must set one."""

    code = "model_not_priced"
    http_status = 400


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"
    http_status = 405
    allowed: tuple[str, ...] = ()

    @classmethod
    def of(cls, method: str, *, allowed: tuple[str, ...]) -> Self:
        error = cls(f"{method} is not allowed here. Allowed: {', '.join(allowed)}.")
        error.allowed = allowed
        return error


class RequestTimeout(RequestError):
    code = "request_timeout"
    http_status = 408


class BodyTooLarge(RequestError):
    code = "request_too_large"
    http_status = 413


class UnsupportedEncoding(RequestError):
    """The body is compressed. Decoding it would let a few bytes become gigabytes."""

    code = "unsupported_content_encoding"
    http_status = 415


class RateLimited(RequestError):
    code = "rate_limit_exceeded"
    http_status = 429


class QuotaExceeded(RequestError):
    """A limit is spent and its window ends in more than a minute: retrying soon is pointless."""

    code = "insufficient_quota"
    http_status = 429


class IdempotencyKeyUsed(RequestError):
    """The same request was sent before, and may have worked."""

    code = "idempotency_key_used"
    http_status = 409


class IdempotencyKeyReused(RequestError):
    """The idempotency key belongs to a different request."""

    code = "idempotency_key_reused"
    http_status = 422


class UpstreamError(GatewayError):
    """upstream_status: the HTTP status of the upstream's answer, None if there was none.

    is_passing: the same call may well succeed a moment later (and `may_have_worked` is False).
    is_server_error: the upstream answered with a status of 500 or above.
    operator_fault: what the gateway's operator must fix at the provider, "" for nothing.
    reading: the usage that the upstream reported with the error; None if it reported none.
    """

    code = "upstream_error"
    http_status = 502
    upstream_status: int | None = None
    is_passing = False
    is_server_error = False
    operator_fault = ""
    reading: Reading | None = None


class UpstreamRejected(UpstreamError):
    """The upstream refused the caller's request (400, 404, 413, 422): nothing was generated.

    is_of_target: another target of the route may accept it: this one doesn't have the model, or it is too much for it.
    """

    is_of_target = False

    code = "invalid_request"
    http_status = 400


class UpstreamRateLimited(UpstreamError):
    code = "rate_limit_exceeded"
    http_status = 429


class UpstreamUnreachable(UpstreamError):
    """No connection was made: the upstream certainly did nothing."""

    code = "upstream_unreachable"
    is_passing = True


class UpstreamFailed(UpstreamError):
    code = "upstream_error"


class RequestUnwritten(UpstreamFailed):
    """The request could not be written in the provider's dialect, so nothing was sent: no fault of the provider's."""


class UpstreamTimeout(UpstreamError):
    code = "upstream_timeout"
    http_status = 504


class GatewayFault(GatewayError):
    pass


class BooksUnavailable(GatewayFault):
    """Nothing can be recorded, so nothing is sent."""

    code = "books_unavailable"
    http_status = 503
    retry_after_s = 5.0


class ShuttingDown(GatewayFault):
    code = "shutting_down"
    http_status = 503
    retry_after_s = 1.0


class Overloaded(GatewayFault):
    """There is no room for the request at the moment: nothing was read, recorded or sent."""

    code = "overloaded"
    http_status = 503
    retry_after_s = 1.0


class InternalError(GatewayFault):
    pass


class PriceMissing(Exception):
    """A meter that is not zero has no rate. `meters` names each."""

    def __init__(self, meters: tuple[str, ...]) -> None:
        super().__init__(f"no rate for {', '.join(meters)}")
        self.meters = meters


def describe_exception(error: BaseException) -> dict[str, object]:
    """Log fields for an exception that isn't ours: its class and place, and those of its causes.

    Never its text, nor that of its causes, which may contain a prompt, a key, or a row of the database.
    """
    classes: list[str] = []
    cause: BaseException | None = error
    while cause is not None and len(classes) < _MAX_CAUSES:
        classes.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    frames = traceback.extract_tb(error.__traceback__)[-_MAX_FRAMES:]
    where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": classes[0], "causes": classes[1:], "where": where}


def without_frames(error: GatewayError) -> GatewayError:
    """The same exception, without its frames and those of its causes, which keep everything in progress alive."""
    cause: BaseException | None = error
    for _ in range(_MAX_CAUSES):
        if cause is None:
            break
        cause.__traceback__ = None
        cause = cause.__cause__ or cause.__context__
    return error
