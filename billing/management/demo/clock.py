"""A clock that this process can set back, so that a year of steps is taken by the code that takes them every day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from django.apps import apps
from django.conf import settings
from django.utils import timezone

_REAL_NOW = timezone.now
_SELLER = {
    "name": "Example Gateway Ltd",
    "address": "1 Example Street\nLondon",
    "tax_id": "GB 000 0000 00",
    "payment": "Example Bank, IBAN GB00 0000 0000 0000 0000 00",
}


@contextmanager
def set_clock(moment: datetime) -> Iterator[None]:
    """In the block, `timezone.now()` is that moment, for this whole process. The database's own clock goes on."""
    former = timezone.now

    def now() -> datetime:
        return moment

    timezone.now = now
    _replace_defaults(_REAL_NOW, now)
    try:
        yield
    finally:
        timezone.now = former
        _replace_defaults(now, _REAL_NOW)


def _replace_defaults(former: Callable[[], datetime], new: Callable[[], datetime]) -> None:
    """Columns keep the function that they were declared with, and cache it."""
    for field in (field for model in apps.get_models() for field in model._meta.local_concrete_fields):
        if field.default is former:
            field.default = new
            field.__dict__.pop("_get_default", None)


@contextmanager
def example_seller() -> Iterator[None]:
    """In the block, a seller that isn't configured is an invented one: without one, no invoice can be issued."""
    former = settings.BILLING_SELLER
    settings.BILLING_SELLER = former | {name: former[name] or value for name, value in _SELLER.items()}
    try:
        yield
    finally:
        settings.BILLING_SELLER = former
