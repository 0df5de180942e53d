"""What an account's and a key's page begin with."""

from __future__ import annotations

from django import template
from django.contrib.auth.models import AnonymousUser, PermissionsMixin

from billing.admin import customer_home
from llm.models import Account, ApiKey

register = template.Library()


@register.simple_tag
def account_home(account: Account, user: PermissionsMixin | AnonymousUser) -> customer_home.AccountHome | None:
    return customer_home.account_home(account, user)


@register.simple_tag
def key_home(key: ApiKey, user: PermissionsMixin | AnonymousUser) -> customer_home.KeyHome | None:
    return customer_home.key_home(key, user)
