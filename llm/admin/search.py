"""One search box for what people have in hand: an account's or key's name, a pasted secret, an id, a number.

Each kind is looked for in what its reader may see, by an index, and only a few of each are shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, PermissionsMixin
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse

from llm.admin.secrets import reduce_secrets, without_secrets
from llm.models import Account, ApiKey, ModelRoute, OpenCall, Usage

MAX_SHOWN = 8
"""Of each kind."""
MAX_LENGTH = 200
_MIN_HEX = 8
"""So many digits of an id begin it: with fewer, too many calls do."""
_HEX_DIGITS = 32
_ID = re.compile(r"(?:req_)?([0-9a-f-]{8,36})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Hit:
    """kind: in the plural, a heading. is_exact: there is only one thing that this can mean."""

    kind: str
    name: str
    url: str
    detail: str = ""
    is_exact: bool = False


Person = PermissionsMixin | AbstractBaseUser | AnonymousUser
Finder = Callable[[str], Iterator[Hit]]


def search_too(finder: Finder, *permissions: str) -> None:
    """For apps on top of this one: find more, after ours, for users with all of these permissions."""
    _FINDERS[finder] = permissions


def find(text: str, user: Person) -> list[Hit]:
    """text: without secrets."""
    finders = (finder for finder, permissions in _FINDERS.items() if user.has_perms(permissions))  # type: ignore[union-attr]
    return list(chain.from_iterable(finder(text) for finder in finders)) if text else []


def search_view(request: HttpRequest) -> HttpResponse:
    """A single exact hit is opened at once."""
    if (reduced := without_secrets(request)) is not None:
        return reduced
    text = request.GET.get("q", "").strip()[:MAX_LENGTH]
    hits = find(reduce_secrets(text), request.user)
    exact = [hit for hit in hits if hit.is_exact]
    if len(exact) == 1:
        return HttpResponseRedirect(exact[0].url)
    context = {
        **admin.site.each_context(request),
        "title": "Search",
        "text": text,
        "hits": hits,
        "max_shown": MAX_SHOWN,
    }
    return TemplateResponse(request, "admin/llm/search.html", context)


def _accounts(text: str) -> Iterator[Hit]:
    for account in Account.objects.filter(name__icontains=text).order_by("name")[:MAX_SHOWN]:
        detail = "" if account.status == "active" else account.get_status_display()
        url = reverse("admin:llm_account_change", args=(account.pk,))
        yield Hit("Accounts", account.name, url, detail, is_exact=account.name.casefold() == text.casefold())


def _keys(text: str) -> Iterator[Hit]:
    prefix, dots, last_four = text.partition("…")
    by_text = (
        Q(prefix=prefix, last_four=last_four)
        if dots
        else Q(name__icontains=text) | Q(prefix__startswith=text) | Q(last_four=text)
    )
    keys = ApiKey.objects.filter(by_text).select_related("account").order_by("-id")[:MAX_SHOWN]
    for key in keys:
        url = reverse("admin:llm_apikey_change", args=(key.pk,))
        yield Hit("API keys", f"{key.name} ({key.masked})", url, key.account.name, is_exact=bool(dots))


def _calls(text: str) -> Iterator[Hit]:
    """By the id of a call, a request or a reply; the first two by their beginning too."""
    found: list[Usage | OpenCall] = []
    if (bounds := _bounds_of_id(text)) is not None:
        for name in ("id", "request_id"):
            # Open ones first: one that is closed meanwhile is found twice, not missed.
            found += OpenCall.objects.filter(**{f"{name}__range": bounds}).order_by(name)[:MAX_SHOWN]
            found += Usage.objects.filter(**{f"{name}__range": bounds}).order_by(name)[:MAX_SHOWN]
    else:
        found += Usage.objects.filter(Q(upstream_response_id=text) & ~Q(upstream_response_id=""))[:MAX_SHOWN]
    calls = list({call.pk: call for call in found}.values())[:MAX_SHOWN]
    for call in calls:
        detail = f"{call.opened_at:%Y-%m-%d %H:%M} UTC, {call.model}"
        yield Hit("Calls", str(call.pk), reverse("admin:llm_usage_change", args=(call.pk,)), detail, len(calls) == 1)


def _bounds_of_id(text: str) -> tuple[UUID, UUID] | None:
    match = _ID.fullmatch(text)
    digits = match[1].replace("-", "") if match else ""
    if not _MIN_HEX <= len(digits) <= _HEX_DIGITS:
        return None
    return UUID(digits.ljust(_HEX_DIGITS, "0")), UUID(digits.ljust(_HEX_DIGITS, "f"))


def _routes(text: str) -> Iterator[Hit]:
    for route in ModelRoute.objects.filter(name__icontains=text).order_by("name")[:MAX_SHOWN]:
        yield Hit("Routes", route.name, reverse("admin:llm_modelroute_change", args=(route.pk,)))


def _models(text: str) -> Iterator[Hit]:
    """The calls of exactly this model."""
    if Usage.objects.filter(model=text).exists():
        yield Hit("Models", text, f"{reverse('admin:llm_usage_changelist')}?{urlencode({'model': text})}", "its calls")


_FINDERS: dict[Finder, tuple[str, ...]] = {
    _accounts: ("llm.view_account",),
    _keys: ("llm.view_apikey",),
    _calls: ("llm.view_usage",),
    _routes: ("llm.view_modelroute",),
    _models: ("llm.view_usage",),
}
