"""The staff's side of the gateway, on Django's own admin site."""

from llm.admin import bookkeeping, outbox, signin, site, staff
from llm.admin.accounts import account_admin
from llm.admin.keys import key_admin
from llm.admin.limits import limit_admin
from llm.admin.prices import price_admin, rerating_admin, route_admin
from llm.admin.usage import refused_admin, usage_admin

__all__ = (
    "account_admin",
    "bookkeeping",
    "key_admin",
    "limit_admin",
    "outbox",
    "price_admin",
    "refused_admin",
    "rerating_admin",
    "route_admin",
    "signin",
    "site",
    "staff",
    "usage_admin",
)
