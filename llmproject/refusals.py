"""Responses outside our views: JSON for programs, a small page for people under /admin/ and /docs/."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import structlog
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.html import escape

from llm.api.views import error_response, wire_for_path
from llm.db.outages import Outage, outage_of, sentence_for_callers
from llm.errors import BooksUnavailable, GatewayError, InternalError, InvalidRequest, NotFound, PermissionDenied
from llm.ids import uuid7
from llmproject.quietlogs import told_outages

log = structlog.get_logger("llmproject.pages")

SERVED = "This server serves /v1/, /api/chat, /api/v1/, /admin/ and /docs/."
NO_SUCH_HOST = "This host name is not allowed here. The operator lists allowed names in ALLOWED_HOSTS."
UNREADABLE = "The request's address, headers or form can't be read: they must be text, without NUL characters."

_PAGE = '<!doctype html>\n<html lang="en"><title>{title}</title><h1>{title}</h1><p>{message}</p></html>\n'
_TITLES = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    408: "Request timeout",
    413: "Request too large",
    503: "Busy",
}


def is_below(path: str, *places: str) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def is_for_people(path: str) -> bool:
    return is_below(path, "/admin", "/docs")


def refusal(path: str, error: GatewayError) -> HttpResponse:
    """In the form that callers of the path expect."""
    request_id = f"req_{uuid7().hex}"
    if not is_for_people(path) and not is_below(path, "/api/v1"):
        return error_response(error, wire_for_path(path), request_id=request_id)
    status = error.http_status
    headers = {"x-request-id": request_id, **_retry_after(error)}
    if is_below(path, "/api/v1"):
        return JsonResponse({"detail": error.message}, status=status, headers=headers)
    page = _PAGE.format(title=_TITLES.get(status, "Error"), message=escape(error.message))
    return HttpResponse(page, status=status, headers=headers)


def nothing_at(path: str) -> NotFound:
    text = path[:200].encode("utf-8", "replace").decode()
    return NotFound(f"Nothing was found at {text}. {SERVED}")


def _retry_after(error: GatewayError) -> Mapping[str, str]:
    return {} if error.retry_after_s is None else {"retry-after": str(round(error.retry_after_s))}


# --- Django's error handlers ------------------------------------------------------------------------------------------


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return refusal(request.path, InvalidRequest("The request can't be served in this form."))


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponse:
    """With the reason if one of our pages gives it, for example that another user was faster."""
    return refusal(request.path, PermissionDenied(str(exception) or "You don't have permission to do this."))


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return refusal(request.path, nothing_at(request.path))


def server_error(request: HttpRequest) -> HttpResponse:
    """Called while the exception is being handled."""
    outage = outage_of(sys.exc_info()[1])
    if outage is None or outage is Outage.NOT_MIGRATED:
        return refusal(request.path, InternalError("Something went wrong on our side."))
    if (left_out := told_outages.left_out(("page", outage))) is not None:
        log.warning("database.unavailable", during="page", reason=outage, path=request.path[:200], left_out=left_out)
    return without_log(refusal(request.path, BooksUnavailable(sentence_for_callers(outage))))


def without_log(response: HttpResponse) -> HttpResponse:
    """Django would log each 5xx as an error, with a traceback; the cause has been logged already."""
    response._has_been_logged = True  # type: ignore[attr-defined]  # read by django.utils.log.log_response
    return response
