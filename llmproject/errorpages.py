"""What Django answers where the database can't be used, or too many ask: 503, and a sentence that says why."""

from __future__ import annotations

import sys

import structlog
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.views import defaults

from llm.outages import Outage, outage_of, sentence_for_callers

log = structlog.get_logger("llmproject.pages")

RETRY_AFTER_S = 5


def refusal(path: str, sentence: str) -> HttpResponse:
    """503: JSON as the management API has it, or else a plain sentence."""
    headers = {"retry-after": str(RETRY_AFTER_S)}
    if path.startswith("/api/"):
        return JsonResponse({"detail": sentence}, status=503, headers=headers)
    return HttpResponse(f"{sentence}\n", status=503, content_type="text/plain; charset=utf-8", headers=headers)


def server_error(request: HttpRequest) -> HttpResponseBase:
    """Django's `handler500`, called while the exception is at hand."""
    outage = outage_of(sys.exc_info()[1])
    if outage is None or outage is Outage.NOT_MIGRATED:
        return defaults.server_error(request)
    log.warning("database unavailable for a page", reason=outage, path=request.path)
    return without_log(refusal(request.path, sentence_for_callers(outage)))


def without_log(response: HttpResponse) -> HttpResponse:
    """Django would tell each 5xx as an error, with a traceback: what is wrong has been said."""
    response._has_been_logged = True  # type: ignore[attr-defined]  # django.utils.log.log_response looks at it
    return response
