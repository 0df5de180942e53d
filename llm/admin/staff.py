"""Users and groups: Django's own pages, with our restrictions on lists and our detection of concurrent edits."""

from __future__ import annotations

from allauth.account.models import EmailAddress
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from llm.admin.concurrent_edits import ConcurrentEdits, lock_row
from llm.admin.lookups import OnlyKnownLookups

# These are allauth's addresses for email confirmation, which isn't used.
admin.site.unregister((User, Group, EmailAddress))


@admin.register(User)
class StaffAdmin(OnlyKnownLookups[User], ConcurrentEdits[User], UserAdmin):  # type: ignore[type-arg]  # generic in its stubs alone
    # Set by signing in, or never: a form would write back old values.
    readonly_fields = ("last_login", "date_joined")

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        """Under the user's lock: the whole row is written, and was read before the new password was hashed."""
        with transaction.atomic():
            user = self.get_object(request, unquote(id)) if request.method == "POST" else None
            if user is not None:
                lock_row(user)
            return super().user_change_password(request, id, form_url)


@admin.register(Group)
class StaffGroupAdmin(OnlyKnownLookups[Group], ConcurrentEdits[Group], GroupAdmin):
    pass
