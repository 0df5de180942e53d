"""Forms of API keys."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from llm.admin.base import ModelForm
from llm.admin.keys.known_models import known_models
from llm.admin.one_time_forms import OneTimeForm
from llm.enums import AccountStatus
from llm.models import ApiKey
from llm.prices.catalog import MAX_NAME_LENGTH

MAX_ALLOWED_MODELS = 200

GRACE_PERIODS = {
    "0": ("Revoke it immediately", timedelta()),
    "3600": ("1 hour", timedelta(hours=1)),
    "86400": ("24 hours", timedelta(hours=24)),
    "604800": ("7 days", timedelta(days=7)),
}


class ModelNamesInput(forms.Textarea):
    """With a list of known names to choose from, which a script adds to the text."""

    def render(self, name: str, value: Any, attrs: dict[str, Any] | None = None, renderer: Any = None) -> SafeString:
        field = super().render(name, value, attrs, renderer)
        target = (attrs or {}).get("id", f"id_{name}")
        options = format_html_join("", '<option value="{}"></option>', ((each,) for each in known_models()))
        return format_html(
            '{}<span class="gw-add-model" hidden><input type="text" list="{}-known" aria-label="A model to add" '
            'placeholder="Choose or type a model"> <button type="button" class="button" data-adds-line="{}">Add'
            '</button></span><datalist id="{}-known">{}</datalist>',
            field,
            target,
            target,
            target,
            options,
        )


class ModelNamesField(forms.CharField):
    """A list of model names, one per line or separated by commas."""

    widget = ModelNamesInput(attrs={"rows": 4, "cols": 40, "class": "gw-mono", "spellcheck": "false"})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        text: str = super().clean(value)
        names = list(dict.fromkeys(name.strip() for name in text.replace(",", "\n").splitlines() if name.strip()))
        if len(names) > MAX_ALLOWED_MODELS:
            raise ValidationError(f"At most {MAX_ALLOWED_MODELS} models. To allow more, create a key for all models.")
        for name in names:
            if len(name) > MAX_NAME_LENGTH:
                raise ValidationError(f"“{name[:40]}…” is longer than a model's name can be.")
        return names

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(super().has_changed(self.prepare_value(initial), data))


class MomentInput(forms.DateTimeInput):
    """The browser's own date and time input."""

    input_type = "datetime-local"

    def __init__(self) -> None:
        super().__init__(attrs={"step": 60}, format="%Y-%m-%dT%H:%M")


class KeyForm(ModelForm[ApiKey]):
    """What may be changed after a key was created."""

    expires_at = forms.DateTimeField(
        label="Expires", required=False, widget=MomentInput(), help_text="UTC. Empty: it never expires."
    )
    allowed_models = ModelNamesField(
        required=False,
        help_text="The models this key may call, one per line or separated by commas, each by its whole name. Empty: "
        "all models.",
    )

    class Meta:
        model = ApiKey
        fields = ("name", "owner", "note", "expires_at", "allowed_models")
        widgets = {
            "name": forms.TextInput(attrs={"class": "vTextField"}),
            "owner": forms.TextInput(attrs={"class": "vTextField"}),
            "note": forms.Textarea(attrs={"rows": 2, "cols": 40}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.revoked_at is not None and "expires_at" in self.fields:
            self.fields["expires_at"].disabled = True
            self.fields[
                "expires_at"
            ].help_text = "The expiry of a key that is revoked, or about to be, can't be changed."

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if "expires_at" in self.changed_data and expires_at is not None and expires_at <= timezone.now():
            raise ValidationError("This is in the past. To disable a key now, revoke it.")
        return expires_at


class NewKeyForm(KeyForm, OneTimeForm):
    class Meta(KeyForm.Meta):
        fields = ("account", *KeyForm.Meta.fields)  # type: ignore[assignment]

    def clean_account(self) -> Any:
        account = self.cleaned_data["account"]
        if account.status == AccountStatus.CLOSED:
            raise ValidationError(f"The account “{account}” is closed: it can't get new keys.")
        return account


class RotateForm(OneTimeForm):
    grace = forms.ChoiceField(
        label="Keep the old key working for",
        choices=[(seconds, label) for seconds, (label, _) in GRACE_PERIODS.items()],
        initial="86400",
        widget=forms.RadioSelect,
        help_text="Time to deploy the new key wherever the old one is used.",
    )

    @property
    def grace_period(self) -> timedelta:
        return GRACE_PERIODS[self.cleaned_data["grace"]][1]
