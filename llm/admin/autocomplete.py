"""A field that suggests rows while typing."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.widgets import AutocompleteSelect

LONGEST_ID = 18
"""Digits that fit every database's ids."""


class ForgivingAutocomplete(AutocompleteSelect):
    """Django's own passes any chosen value of a link or form to the database, and fails on one that can't be an id."""

    def optgroups(self, name: str, value: Any, attrs: dict[str, Any] | None = None) -> Any:
        return super().optgroups(name, [each for each in value if is_id(str(each))], attrs)


def is_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= LONGEST_ID
