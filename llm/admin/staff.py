"""People and groups: Django's own pages, whose lists answer no more than ours do."""

from __future__ import annotations

from allauth.account.models import EmailAddress
from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User

from llm.admin.lookups import OnlyKnownLookups

# Addresses are allauth's for confirming them, which nothing here does.
admin.site.unregister((User, Group, EmailAddress))


@admin.register(User)
class StaffAdmin(OnlyKnownLookups[User], UserAdmin):  # type: ignore[type-arg]  # generic in its stubs alone
    pass


@admin.register(Group)
class StaffGroupAdmin(OnlyKnownLookups[Group], GroupAdmin):
    pass
