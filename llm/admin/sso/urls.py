"""The two addresses that a sign-in by the provider needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import requests
from allauth.socialaccount.providers.openid_connect.views import callback, login
from django.http import HttpRequest, HttpResponseBase
from django.urls import path

from llm.admin.sso.adapter import UNREACHABLE, refusal

PROVIDER_ID = "sso"


def _guarded(view: Callable[..., HttpResponseBase]) -> Callable[..., HttpResponseBase]:
    """allauth reads the provider's configuration outside of its own error handling."""

    @wraps(view)
    def guarded(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, **kwargs)
        except (requests.RequestException, ValueError, KeyError):
            return refusal(request, UNREACHABLE, status=502)

    return guarded


urlpatterns = [
    path("<slug:provider_id>/login/", _guarded(login), name="openid_connect_login"),
    path("<slug:provider_id>/login/callback/", _guarded(callback), name="openid_connect_callback"),
]
