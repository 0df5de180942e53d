"""Pages of the admin as a browser uses them: opened, filled in, sent."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

from django.test import Client

_HIDDEN = re.compile(r'<input type="hidden" name="(form_version|seen|form_token)" value="([^"]*)"')


def seen_on(client: Client, url: str, data: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What the page says about what it showed; with data, the page that answers these."""
    page = client.get(url) if data is None else client.post(url, data)
    return {name: html.unescape(value) for name, value in _HIDDEN.findall(page.content.decode())}


class _Form(HTMLParser):
    """What a browser would send of a page's form as it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, Any] = {}
        self._select = self._textarea = ""
        self._is_multiple = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        name = values.get("name", "")
        if tag == "select":
            self._select, self._is_multiple = name, "multiple" in values
            self.fields[name] = [] if self._is_multiple else ""
        elif tag == "option" and "selected" in values and self._select:
            chosen = values.get("value", "")
            self.fields[self._select] = [*self.fields[self._select], chosen] if self._is_multiple else chosen
        elif tag == "textarea":
            self._textarea = name
            self.fields[name] = ""
        elif tag == "input" and name and self._is_sent(values):
            is_ticked = values.get("type") in ("checkbox", "radio")
            self.fields[name] = values.get("value", "on" if is_ticked else "")

    def handle_endtag(self, tag: str) -> None:
        self._select = "" if tag == "select" else self._select
        self._textarea = "" if tag == "textarea" else self._textarea

    def handle_data(self, data: str) -> None:
        if self._textarea:
            # HTML drops a line break after the tag.
            self.fields[self._textarea] += data.removeprefix("\n").removeprefix("\r\n")

    def _is_sent(self, values: dict[str, str]) -> bool:
        if values.get("type") in ("checkbox", "radio"):
            return "checked" in values
        return values.get("type") not in ("submit", "button", "file")


def form_on(client: Client, url: str) -> dict[str, Any]:
    """The fields of the page, as they would be sent without a change."""
    parser = _Form()
    parser.feed(client.get(url).content.decode())
    ours = {name: value for name, value in parser.fields.items() if "__prefix__" not in name}
    return {name: value for name, value in ours.items() if name not in ("csrfmiddlewaretoken", "_selected_action")}


def send(client: Client, url: str, data: Mapping[str, Any] | None = None) -> Any:
    """Open the page and send its form with these values."""
    return client.post(url, {**seen_on(client, url), **(data or {})})


def confirm(client: Client, url: str, data: Mapping[str, Any]) -> Any:
    """Choose rows of a list and an action, and answer its question with yes."""
    return client.post(url, {**data, **seen_on(client, url, data), "confirmed": "yes"})


def text_of(response: Any) -> str:
    return html.unescape(response.content.decode())
