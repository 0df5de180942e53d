"""The field that proposes rows while people type."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.widgets import AutocompleteSelect

LONGEST_ID = 18
"""Digits that every database's largest id has room for."""


class ForgivingAutocomplete(AutocompleteSelect):
    """Django's own asks the database for whatever a link or a form says is chosen, and fails where that is no id."""

    def optgroups(self, name: str, value: Any, attrs: dict[str, Any] | None = None) -> Any:
        return super().optgroups(name, [each for each in value if is_id(str(each))], attrs)


def is_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= LONGEST_ID
