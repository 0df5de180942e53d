"""allauth's second factor with our secrets, counters and rules."""

from __future__ import annotations

from typing import Any

from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.base.forms import AuthenticateForm
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.forms import ActivateTOTPForm
from allauth.mfa.webauthn.forms import AddWebAuthnForm, AuthenticateWebAuthnForm
from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils.crypto import salted_hmac

from llm.secretstore import seal, unseal
from llm.signin import try_second_factor

USED_CODES = 4
"""Codes remembered per user: as many as are valid at any time, so that none works twice."""
_USED = "used_codes"


class SecondFactorAdapter(DefaultMFAAdapter):
    """Secrets are stored encrypted, as webhook secrets are. No mail is sent: users may have no address."""

    error_messages = {**DefaultMFAAdapter.error_messages, "incorrect_code": "This code is wrong or has expired."}

    def encrypt(self, text: str) -> str:
        return seal(text)

    def decrypt(self, encrypted_text: str) -> str:
        return unseal(encrypted_text)

    def send_notification_mail(self, *args: Any, **kwargs: Any) -> None:
        """The audit log has it."""

    def _get_user_identifier(self, user: Any) -> str:
        return str(user.get_username())


class CodeForm(AuthenticateForm):
    """Codes of an app, or recovery codes. Attempts are counted like passwords, and a code works once."""

    code = forms.CharField(
        max_length=40, widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "autofocus": True})
    )

    def clean_code(self) -> str:
        """Raises SignInRefused."""
        code: str = self.cleaned_data["code"].strip()
        found = try_second_factor(context.request, self.user, lambda: _find(self.user, code))
        if found is None:
            raise SecondFactorAdapter().validation_error("incorrect_code")
        self.authenticator = found
        return code


class KeyForm(AuthenticateWebAuthnForm):
    """Answers of passkeys. What can't be read is a wrong one."""

    def clean_credential(self) -> Authenticator:
        credential = self.cleaned_data["credential"]
        found = try_second_factor(context.request, self.user, lambda: self._check(credential))
        if found is None:
            raise SecondFactorAdapter().validation_error("incorrect_code")
        return found

    def _check(self, credential: object) -> Authenticator | None:
        if not isinstance(credential, dict):
            return None
        try:
            return super().clean_credential()
        except (ValidationError, *_UNREADABLE):
            return None


_UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)
"""What fido2 raises for an answer that no authenticator has made."""


class NewKeyForm(AddWebAuthnForm):
    name = forms.CharField(required=False, max_length=100)

    def clean(self) -> dict[str, Any]:
        if not isinstance(self.cleaned_data.get("credential"), dict):
            raise SecondFactorAdapter().validation_error("incorrect_code")
        try:
            return dict(super().clean())
        except _UNREADABLE as error:
            if isinstance(error, ValidationError):
                raise
            raise SecondFactorAdapter().validation_error("incorrect_code") from error


class NewAppForm(ActivateTOTPForm):
    code = forms.CharField(
        max_length=10, widget=forms.TextInput(attrs={"autocomplete": "one-time-code", "inputmode": "numeric"})
    )


@transaction.atomic
def _find(user: User, code: str) -> Authenticator | None:
    """The app or the recovery codes that the code is of. Two processes never accept the same one."""
    types = (Authenticator.Type.TOTP, Authenticator.Type.RECOVERY_CODES)
    for each in Authenticator.objects.select_for_update().filter(user=user, type__in=types).order_by("pk"):
        digest = salted_hmac("llm.second_factor", code, algorithm="sha256").hexdigest()[:32]
        used = each.data.get(_USED, [])
        if digest in used or not each.wrap().validate_code(code):
            continue
        if each.type == Authenticator.Type.TOTP:
            each.data[_USED] = [*used, digest][-USED_CODES:]
            each.save(update_fields=["data"])
        each.user = user
        return each
    return None
