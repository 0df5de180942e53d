"""Users and groups: Django's own pages, with our restrictions on lists and our detection of concurrent edits."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from django import forms
from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from llm.admin.base import ModelForm
from llm.admin.concurrent_edits import ConcurrentEdits, lock_row
from llm.admin.lookups import OnlyKnownLookups
from llm.models import SecondFactorGroup
from llm.signin import has_second_factor, reset_second_factor

# These are allauth's addresses for email confirmation, which isn't used.
admin.site.unregister((User, Group, EmailAddress, Authenticator, SocialAccount, SocialApp, SocialToken))


class GroupForm(ModelForm[Group]):
    second_factor = forms.BooleanField(
        label="Requires a second factor",
        required=False,
        help_text="Members must set one up at their next sign-in; those who exist already have some days "
        "(LLM_SECOND_FACTOR_GRACE_DAYS). Only superusers can change this.",
    )

    class Meta:
        model = Group
        fields = ("name", "permissions")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["second_factor"] = SecondFactorGroup.objects.filter(group=self.instance.pk).exists()


@admin.register(User)
class StaffAdmin(OnlyKnownLookups[User], ConcurrentEdits[User], UserAdmin):  # type: ignore[type-arg]  # generic in its stubs alone
    # Set by signing in, or never: a form would write back old values.
    readonly_fields = ("last_login", "date_joined", "second_factor")

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        found = super().get_fieldsets(request, obj)
        return found if obj is None else (*found, ("Second factor", {"fields": ("second_factor",)}))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.reset_second_factor_view)
        return [path("<int:object_id>/second-factor/", view, name="auth_user_second_factor"), *super().get_urls()]

    @admin.display(description="Second factor")
    def second_factor(self, user: User) -> SafeString | str:
        if not has_second_factor(user):
            return "none"
        url = reverse("admin:auth_user_second_factor", args=(user.pk,))
        return format_html('set up <a class="gw-cancel" href="{}">Reset it</a>', url)

    def reset_second_factor_view(self, request: HttpRequest, object_id: int) -> HttpResponse:
        """By another superuser only: a session that was stolen must not lose the factor of its own user."""
        user = self.get_object(request, str(object_id))
        if user is None:
            raise Http404
        if not request.user.is_superuser or user.pk == request.user.pk:
            raise PermissionDenied("Only another superuser can reset a second factor.")
        back = reverse("admin:auth_user_change", args=(user.pk,))
        if request.method == "POST":
            if reset_second_factor(user):
                self.log_change(request, user, "Second factor reset.")
                self.message_user(request, f"{user} can now set up a new second factor.")
            return HttpResponseRedirect(back)
        context = {**self.admin_site.each_context(request), "title": "Reset second factor", "user_": user, "back": back}
        return TemplateResponse(request, "admin/llm/reset_second_factor.html", context)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        """Under the user's lock: the whole row is written, and was read before the new password was hashed."""
        with transaction.atomic():
            user = self.get_object(request, unquote(id)) if request.method == "POST" else None
            if user is not None:
                lock_row(user)
            return super().user_change_password(request, id, form_url)


@admin.register(Group)
class StaffGroupAdmin(OnlyKnownLookups[Group], ConcurrentEdits[Group], GroupAdmin):
    form = GroupForm

    def get_form(self, request: HttpRequest, obj: Group | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        if "second_factor" in form.base_fields:
            form.base_fields["second_factor"].disabled = not request.user.is_superuser
        return form

    def save_model(self, request: HttpRequest, obj: Group, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if "second_factor" not in form.changed_data or not request.user.is_superuser:
            return
        if form.cleaned_data["second_factor"]:
            SecondFactorGroup.objects.get_or_create(group=obj)
        else:
            SecondFactorGroup.objects.filter(group=obj).delete()
