"""Staff for billing's tests, by what they may do."""

from __future__ import annotations

from django.contrib.auth.models import Permission, User

PREPARER = ("prepare_invoice",)
APPROVER = ("approve_invoice", "issue_invoice", "credit_invoice")


def make_person(name: str, *permissions: str) -> User:
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    # Permissions are cached on the object that had none.
    return User.objects.get(pk=user.pk)


def make_preparer(name: str = "pat") -> User:
    return make_person(name, *PREPARER)


def make_approver(name: str = "alex") -> User:
    return make_person(name, *APPROVER)
