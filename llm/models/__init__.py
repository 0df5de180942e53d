"""The gateway's tables. Import models from here."""

from llm.models.accounts import Account, ApiKey
from llm.models.catalog import CatalogVersion, ModelRoute, Price, Rate, RateSet, RouteTarget
from llm.models.usage import Usage

__all__ = (
    "Account",
    "ApiKey",
    "CatalogVersion",
    "ModelRoute",
    "Price",
    "Rate",
    "RateSet",
    "RouteTarget",
    "Usage",
)
