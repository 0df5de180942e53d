"""What a deployment should say before it bills anybody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks

from billing.parties import missing_seller_settings


@checks.register("billing", deploy=True)
def check_seller(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    missing = missing_seller_settings()
    if not missing:
        return []
    return [
        checks.Warning(
            f"No invoice can be issued: {', '.join(missing)} not set.",
            "Set them in .env; BILLING_SELLER_TAX_ID=none says that there is no tax ID.",
            id="billing.W001",
        )
    ]
