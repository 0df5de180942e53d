"""Countries that a customer can be in: ISO 3166-1, from django-countries."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django_countries import countries


def country_choices() -> list[tuple[str, str]]:
    """Two-letter codes with their English names, by name."""
    return [(country.code, f"{country.name} ({country.code})") for country in countries]


def is_country(code: str) -> bool:
    return code in countries


def validate_country(code: str) -> None:
    if not is_country(code):
        raise ValidationError(f"“{code}” is not a country code of ISO 3166-1, such as DE or JP.")
