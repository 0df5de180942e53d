"""What the provider's claims make of a user: staff in the mapped groups, or not staff at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import transaction

MAX_NAMES = 1000
"""Groups in a claim; further ones are not looked at."""


class NotAllowed(Exception):
    """The message is for the one who signs in."""


def claims_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the ID token, and over them those of the userinfo endpoint."""
    parts = [data.get("id_token"), data.get("userinfo")]
    return {name: value for part in parts if isinstance(part, Mapping) for name, value in part.items()}


def mapped_groups(claims: Mapping[str, Any]) -> frozenset[str]:
    """Names of our groups. A claim of another form than a text or a list of texts names none."""
    found = claims.get(settings.LLM_OIDC_GROUPS_CLAIM)
    names: Sequence[Any] = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    mapping: Mapping[str, str] = settings.LLM_OIDC_GROUPS
    return frozenset(mapping[name] for name in names[:MAX_NAMES] if isinstance(name, str) and name in mapping)


def admit(sociallogin: Any) -> User:
    """The user of the provider's account, made if there is none, with the groups of now. Raises NotAllowed."""
    claims = claims_of(sociallogin.account.extra_data)
    groups = mapped_groups(claims)
    user: User | None = sociallogin.user if sociallogin.account.pk is not None else None
    if user is not None:
        user = apply_groups(user.pk, groups)
    if not groups:
        raise NotAllowed("None of your groups at the identity provider may use this admin. Ask its administrators.")
    if user is None:
        with transaction.atomic():
            user = apply_groups(_make_user(sociallogin.account.uid, claims).pk, groups)
    if not user.is_active:
        raise NotAllowed("Your user here was deactivated.")
    return user


@transaction.atomic
def apply_groups(user_id: int, groups: frozenset[str]) -> User:
    """Of the mapped groups, the user is in exactly these; without any, the user is no staff, and tokens end too."""
    user = User.objects.select_for_update(of=("self",), no_key=True).get(pk=user_id)
    managed = Group.objects.filter(name__in=set(settings.LLM_OIDC_GROUPS.values()))
    wanted = {group.pk for group in managed if group.name in groups}
    present = set(user.groups.filter(pk__in=managed).values_list("pk", flat=True))
    if added := wanted - present:
        user.groups.add(*added)
    if removed := present - wanted:
        user.groups.remove(*removed)
    if user.is_staff is not bool(groups):
        user.is_staff = bool(groups)
        user.save(update_fields=["is_staff"])
    return user


def is_member(user_id: int, claims: Mapping[str, Any], *, subject: str) -> bool:
    """Whether the account may stay in, after its groups were set to those of the claims."""
    if claims.get("sub") != subject:
        return False
    groups = mapped_groups(claims)
    user = apply_groups(user_id, groups)
    return bool(groups) and user.is_active


def _make_user(subject: str, claims: Mapping[str, Any]) -> User:
    """A local user of that name is another person, until proven otherwise: accounts are never joined by name."""
    given = claims.get("preferred_username") or claims.get("email") or subject
    user = User(username=str(given), email=str(claims.get("email") or "")[:254], is_staff=True)
    user.set_unusable_password()
    try:
        user.full_clean(exclude=["password"])
    except ValidationError as error:
        if User.objects.filter(username=user.username).exists():
            raise NotAllowed(
                f"There is a local user “{user.username}” already. An administrator must rename it first."
            ) from error
        raise NotAllowed("Your name or address at the identity provider can't be used here.") from error
    user.save()
    return user
