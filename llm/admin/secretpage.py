"""The one page that shows a secret: the direct answer to the POST that made the key."""

from __future__ import annotations

from django.conf import settings
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from llm.models import ApiKey


def secret_page(
    site: AdminSite, request: HttpRequest, key: ApiKey, secret: str, *, replaced: ApiKey | None = None
) -> HttpResponse:
    """Nothing may keep it: no cache, no session, no message, no log; not even a response that is rendered later."""
    context = {
        **site.each_context(request),
        "opts": ApiKey._meta,
        "title": "Your new API key",
        "key": key,
        "secret": secret,
        "replaced": replaced,
        "base_url": request.build_absolute_uri("/v1"),
        "model": next(iter(key.allowed_models), settings.LLM_DEFAULT_MODEL or "gpt-4o-mini"),
    }
    response = render(request, "admin/llm/apikey/secret.html", context)
    response["Cache-Control"] = "no-store"
    return response
