"""The pages of allauth that exist here, under names that it expects."""

from __future__ import annotations

from typing import Any

from allauth.account.views import ReauthenticateView
from allauth.mfa.base.views import AuthenticateView, IndexView
from allauth.mfa.recovery_codes.views import GenerateRecoveryCodesView, ViewRecoveryCodesView
from allauth.mfa.totp.views import ActivateTOTPView, DeactivateTOTPView
from allauth.mfa.webauthn.views import AddWebAuthnView, RemoveWebAuthnView
from django.contrib import admin
from django.urls import path
from django.views import View
from django.views.decorators.cache import never_cache

from llm.signin import second_factor_due_at


def _page(view: type[View], title: str) -> Any:
    """With what the admin's templates need; the sidebar is for those who are in."""

    class Page(view):  # type: ignore[misc, valid-type]
        def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
            user = self.request.user
            return {
                **admin.site.each_context(self.request),
                "title": title,
                "is_nav_sidebar_enabled": False,
                "due_at": second_factor_due_at(user) if user.is_authenticated else None,
                **super().get_context_data(**kwargs),
            }

    return never_cache(Page.as_view())


urlpatterns = [
    path("", _page(IndexView, "Second factor"), name="mfa_index"),
    path("authenticate/", _page(AuthenticateView, "Second factor"), name="mfa_authenticate"),
    path("confirm/", _page(ReauthenticateView, "Confirm your password"), name="account_reauthenticate"),
    path("app/add/", _page(ActivateTOTPView, "Add an authenticator app"), name="mfa_activate_totp"),
    path("app/remove/", _page(DeactivateTOTPView, "Remove the authenticator app"), name="mfa_deactivate_totp"),
    path("passkeys/add/", _page(AddWebAuthnView, "Add a passkey"), name="mfa_add_webauthn"),
    path("passkeys/<int:pk>/remove/", _page(RemoveWebAuthnView, "Remove a passkey"), name="mfa_remove_webauthn"),
    path("recovery-codes/", _page(ViewRecoveryCodesView, "Recovery codes"), name="mfa_view_recovery_codes"),
    path("recovery-codes/new/", _page(GenerateRecoveryCodesView, "Recovery codes"), name="mfa_generate_recovery_codes"),
]
