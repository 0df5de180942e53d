"""Responses outside our views: JSON for programs, a small page for people under /admin/ and /docs/."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import structlog
from csp.utils import build_policy
from django.apps import apps
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string

from llm.api.views import error_response, wire_for_path
from llm.db.outages import Outage, outage_of, sentence_for_callers
from llm.errors import BooksUnavailable, GatewayError, InternalError, InvalidRequest, NotFound, PermissionDenied
from llm.ids import uuid7
from llmproject.quietlogs import told_outages

log = structlog.get_logger("llmproject.pages")

SERVED = "This server serves /v1/, /api/chat, /api/v1/, /admin/ and /docs/."
NO_SUCH_HOST = "This host name is not allowed here. The operator lists allowed names in ALLOWED_HOSTS."
UNREADABLE = "The request's address, headers or form can't be read: they must be text, without NUL characters."

_TITLES = {
    400: "This request can't be read",
    403: "You can't open this page",
    404: "Page not found",
    408: "The request took too long",
    413: "This is too large",
    429: "Too many requests",
    500: "Something went wrong",
    503: "Busy at the moment",
}
_ADVICE = {
    404: ("The address may have a typo, or the page may have moved. The overview leads to every page you may open.",),
    500: ("Nothing is known to have been changed. Try again; if it fails again, tell your administrator.",),
    503: ("Nothing was changed. Wait a moment, then try again.",),
}
_CSRF_MESSAGE = "This form could not be sent: it was not open in this browser's current session. Nothing was changed."
_CSRF_ADVICE = (
    "Go back, reload the page and send it again.",
    "This happens after signing in again in another tab, or if the browser blocks cookies.",
)


_ADMIN_PAGE = re.compile(r"(?P<app>[a-z]+)_(?P<model>[a-z]+)_(?P<page>changelist|add|change|history)")
_ACTIONS = {"add": "add"}
MAX_GROUPS = 20


def is_below(path: str, *places: str) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


def is_for_people(path: str) -> bool:
    return is_below(path, "/admin", "/docs")


def refusal(path: str, error: GatewayError, *, advice: Sequence[str] = (), log_as: str = "") -> HttpResponse:
    """In the form that callers of the path expect. advice: for people. log_as: the id to quote, if the log has it."""
    request_id = log_as or f"req_{uuid7().hex}"
    if not is_for_people(path) and not is_below(path, "/api/v1"):
        return error_response(error, wire_for_path(path), request_id=request_id)
    status = error.http_status
    headers = {"x-request-id": request_id, **_retry_after(error)}
    if is_below(path, "/api/v1"):
        return JsonResponse({"detail": error.message}, status=status, headers=headers)
    context = {
        "status": status,
        "title": _TITLES.get(status, "Error"),
        "message": error.message,
        "advice": advice or _ADVICE.get(status, ()),
        "home": "/admin/",
        "again": path if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "",
        "request_id": log_as,
    }
    page = HttpResponse(render_to_string("error.html", context), status=status, headers=headers)
    # Also for those that no middleware sees.
    page["Content-Security-Policy"] = build_policy()
    return page


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
    reason = str(exception) or "You don't have permission to do this."
    return refusal(request.path, PermissionDenied(reason), advice=_advice_on_rights(request))


def csrf_failed(request: HttpRequest, reason: str = "") -> HttpResponse:
    """For CSRF_FAILURE_VIEW. reason: for developers, in the log."""
    return refusal(request.path, PermissionDenied(_CSRF_MESSAGE), advice=_CSRF_ADVICE)


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return refusal(request.path, nothing_at(request.path))


def server_error(request: HttpRequest) -> HttpResponse:
    """Called while the exception is being handled."""
    outage = outage_of(sys.exc_info()[1])
    if outage is None or outage is Outage.NOT_MIGRATED:
        request_id = f"req_{uuid7().hex}"
        log.error("page.failed", request_id=request_id, path=request.path[:200])
        return refusal(request.path, InternalError("Something went wrong on our side."), log_as=request_id)
    if (left_out := told_outages.left_out(("page", outage))) is not None:
        log.warning("database.unavailable", during="page", reason=outage, path=request.path[:200], left_out=left_out)
    return without_log(refusal(request.path, BooksUnavailable(sentence_for_callers(outage))))


def _advice_on_rights(request: HttpRequest) -> Sequence[str]:
    """Which groups may do it, if it is a list or a record of the admin."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return ("You are not signed in.",)
    advice = [f"You are signed in as {user.get_username()}."]
    match = _ADMIN_PAGE.fullmatch(request.resolver_match.url_name or "") if request.resolver_match else None
    if match is not None:
        codename = f"{_ACTIONS.get(match['page'], 'view')}_{match['model']}"
        groups = apps.get_model("auth", "Group").objects.filter(
            permissions__codename=codename, permissions__content_type__app_label=match["app"]
        )
        names = sorted(set(groups.values_list("name", flat=True)[:MAX_GROUPS]))
        if names:
            advice.append(f"Members of these groups may open it: {', '.join(names)}.")
    return (*advice, "Ask an administrator if you need it.")


def without_log(response: HttpResponse) -> HttpResponse:
    """Django would log each 5xx as an error, with a traceback; the cause has been logged already."""
    response._has_been_logged = True  # type: ignore[attr-defined]  # read by django.utils.log.log_response
    return response
