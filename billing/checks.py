"""What a deployment is told about its settings before it bills anyone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from billing.fonts import font_problem
from billing.invoices.parties import missing_seller_settings


@checks.register("billing", deploy=True)
def check_seller(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    missing = missing_seller_settings()
    if not missing:
        return []
    return [
        checks.Warning(
            f"No invoice can be issued: {', '.join(missing)} not set.",
            "Set them in .env; use BILLING_SELLER_TAX_ID=none if you have no tax ID.",
            id="billing.W001",
        )
    ]


@checks.register("billing")
def check_fonts(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    problems = map(font_problem, settings.BILLING_FONTS)
    return [checks.Error(problem, id="billing.E001") for problem in problems if problem]
