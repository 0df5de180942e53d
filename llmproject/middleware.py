"""What our views needn't handle themselves."""

from __future__ import annotations

import time

from django.conf import settings
from django.contrib.auth import SESSION_KEY, logout
from django.db import DataError
from django.http import HttpRequest, HttpResponse
from django.utils.deprecation import MiddlewareMixin

from llm.errors import InvalidRequest
from llmproject import sessions
from llmproject.proofs import note_proof
from llmproject.refusals import UNREADABLE, is_for_people, refusal

_NUL = "\x00"


class RefuseNulMiddleware(MiddlewareMixin):
    """Python text may contain NUL, PostgreSQL's can't, and queries with it fail.

    Pages refuse an address with one at once. The management API, and forms, have their own messages; in other views the
    failure becomes the same refusal. Bytes that aren't UTF-8 have become U+FFFD by then.
    """

    def process_request(self, request: HttpRequest) -> HttpResponse | None:
        if is_for_people(request.path) and _has_nul_in_address(request):
            return _refuse(request)
        return None

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if isinstance(exception, DataError | ValueError) and (
            _has_nul_in_address(request) or _has_nul_in_form(request)
        ):
            return _refuse(request)
        return None


class SessionLimitsMiddleware(MiddlewareMixin):
    """Sign out after a time without a request, and after a time at all. Sessions from before there was one, too."""

    def process_request(self, request: HttpRequest) -> None:
        if not sessions.names_session(request) or SESSION_KEY not in request.session:
            return
        now = time.time()
        signed_in, seen = request.session.get(sessions.SIGNED_IN_AT), request.session.get(sessions.SEEN_AT)
        is_over = signed_in is None or now - signed_in > settings.LLM_SESSION_HOURS * 3600
        if is_over or seen is None or now - seen > settings.LLM_SESSION_IDLE_MINUTES * 60:
            logout(request)
        elif now - seen > min(60, settings.LLM_SESSION_IDLE_MINUTES * 6):
            request.session[sessions.SEEN_AT] = now


class NoteSessionMiddleware(MiddlewareMixin):
    """Tells the gate in front of pages whether a session is staff's, if a view has asked. An ended one isn't."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        user = getattr(request, "_cached_user", None)
        if user is None:
            return response
        key = request.session.session_key
        if (sent := request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")) != key and sessions.is_plausible(sent):
            note_proof(sent, is_in_force=False)
        if key is not None:
            note_proof(key, is_in_force=bool(user.is_active and user.is_staff))
        return response


def _refuse(request: HttpRequest) -> HttpResponse:
    return refusal(request.path, InvalidRequest(UNREADABLE))


def _has_nul_in_address(request: HttpRequest) -> bool:
    query: str = request.META["QUERY_STRING"]
    return _NUL in request.path or _NUL in query or "%00" in query


def _has_nul_in_form(request: HttpRequest) -> bool:
    return any(_NUL in text for name, values in request.POST.lists() for text in (name, *values))
