"""The staff's side of the gateway, on Django's own admin site."""

from llm.admin import accounts, bookkeeping, keys, limits, outbox, prices, reratings, routes, signin, site, staff, usage

__all__ = (
    "accounts",
    "bookkeeping",
    "keys",
    "limits",
    "outbox",
    "prices",
    "reratings",
    "routes",
    "signin",
    "site",
    "staff",
    "usage",
)
