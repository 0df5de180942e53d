"""Whose request it is, for the audit log; and the entries of sign-ins and downloads."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse, QueryDict
from django.utils.deprecation import MiddlewareMixin
from django.utils.functional import SimpleLazyObject

from llm.admin.secrets import reduce_secrets
from llm.enums import AuditAction
from llm.signin import address_of
from llm.trail.actor import Actor, current_actor, set_actor
from llm.trail.events import record_event

_VIA = "admin"


class AuditMiddleware(MiddlewareMixin):
    """After authentication. Views that authenticate by other means name their own actor."""

    def process_request(self, request: HttpRequest) -> None:
        set_actor(lambda: _actor_of(request))

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        try:
            if _is_download(request, response):
                record_event(AuditAction.DOWNLOADED, _address_of_page(request))
        finally:
            set_actor(None)
        return response


def _actor_of(request: HttpRequest) -> Actor:
    """Without a query, since it is asked for in the middle of a statement."""
    user: Any = getattr(request, "_cached_user", None)
    if user is None and not isinstance(assigned := request.__dict__.get("user"), SimpleLazyObject):
        # A user who has just signed in.
        user = assigned
    address = address_of(request)
    if user is None or user.pk is None:
        return Actor(via=_VIA, address=address)
    return Actor(user.pk, user.get_username(), _VIA, address)


def _is_download(request: HttpRequest, response: HttpResponse) -> bool:
    """A file that someone known has been given; previews in the browser, such as PDFs, are files too."""
    if request.method != "GET" or response.status_code != 200:
        return False
    if current_actor() == Actor(via=_VIA, address=address_of(request)):
        return False
    has_name = "attachment" in response.get("Content-Disposition", "")
    return has_name or response.get("Content-Type", "").startswith("application/pdf")


def _address_of_page(request: HttpRequest) -> str:
    query = QueryDict(mutable=True)
    for name, values in request.GET.lists():
        query.setlist(name, [reduce_secrets(value) for value in values])
    return f"{request.path}?{query.urlencode()}" if query else request.path


@receiver(user_logged_in)
def _record_sign_in(request: HttpRequest | None, user: User, **_signal: Any) -> None:
    record_event(AuditAction.SIGNED_IN, "", actor=_actor_who_signs(request, user))


@receiver(user_logged_out)
def _record_sign_out(request: HttpRequest | None, user: User | None, **_signal: Any) -> None:
    if user is not None:
        record_event(AuditAction.SIGNED_OUT, "", actor=_actor_who_signs(request, user))


def _actor_who_signs(request: HttpRequest | None, user: User) -> Actor:
    return Actor(user.pk, user.get_username(), _VIA, "" if request is None else address_of(request))
