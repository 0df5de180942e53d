"""Pages of the admin as a browser uses them: opened, filled in, sent."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse
from django.test import Client

_HIDDEN = re.compile(r'<input type="hidden" name="(form_version|seen|form_token)" value="([^"]*)"')


def seen_on(client: Client, url: str, data: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What the page says about what it showed; with data, the page that answers these."""
    page = client.get(url) if data is None else client.post(url, data)
    return {name: html.unescape(value) for name, value in _HIDDEN.findall(page.content.decode())}


def send(client: Client, url: str, data: Mapping[str, Any] | None = None) -> Any:
    """Open the page and send its form with these values."""
    return client.post(url, {**seen_on(client, url), **(data or {})})


def confirm(client: Client, url: str, data: Mapping[str, Any]) -> Any:
    """Choose rows of a list and an action, and answer its question with yes."""
    return client.post(url, {**data, **seen_on(client, url, data), "confirmed": "yes"})


def text_of(response: HttpResponse) -> str:
    return html.unescape(response.content.decode())
