"""The staff's side of the gateway, on Django's own admin site."""

from llm.admin import accounts, keys, prices, routes, site, usage

__all__ = ("accounts", "keys", "prices", "routes", "site", "usage")
