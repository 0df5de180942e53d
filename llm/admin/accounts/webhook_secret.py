"""The secret that signs an account's webhooks: created or replaced on its page, shown only in that response."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import reverse

from llm.admin.base import GatewayAdmin
from llm.admin.concurrent_edits import digest_value
from llm.admin.confirmation import SEEN_FIELD
from llm.admin.one_time_forms import OneTimeForm, claim_form, made_by_form, remember_made
from llm.alerts.webhooks import SECRET_MARK, ensure_webhook_secret
from llm.models import Account
from llm.secretstore import NO_KEY, SecretUnavailable, can_seal, unseal

LAST_SHOWN = 4


def masked_webhook_secret(account: Account) -> str:
    """Raises SecretUnavailable if its key is missing or lost."""
    return f"{SECRET_MARK}…{unseal(account.webhook_secret)[-LAST_SHOWN:]}" if account.webhook_secret else ""


def webhook_secret_problem(account: Account) -> str:
    """Why nothing can be signed for the account, as a sentence; "" if it can, or a new secret would fix it."""
    try:
        unseal(account.webhook_secret)
    except SecretUnavailable as error:
        return sentence(error)
    return "" if account.webhook_secret or can_seal() else sentence(SecretUnavailable(NO_KEY))


def sentence(error: SecretUnavailable) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def webhook_secret_view(account_admin: GatewayAdmin[Account], request: HttpRequest, object_id: int) -> HttpResponse:
    """A GET asks for confirmation; the response to its POST is the only page that shows the secret."""
    account = account_admin.get_object(request, str(object_id))
    if account is None:
        raise Http404
    if not account_admin.has_change_permission(request, account):
        raise PermissionDenied
    if not can_seal():
        account_admin.message_user(request, sentence(SecretUnavailable(NO_KEY)), messages.ERROR)
        return HttpResponseRedirect(reverse("admin:llm_account_change", args=(account.pk,)))
    if request.method == "POST" and made_by_form(request) is not None:
        return _answer_repeated(account_admin, request, account)
    form = OneTimeForm(request.POST if request.method == "POST" else None)
    if form.is_bound and form.is_valid() and claim_form(request):
        secret = _replace(account_admin, request, account)
        if secret is None:
            return _answer_changed(account_admin, request, account)
        return _secret_page(account_admin.admin_site, request, account, secret)
    context = {
        **_page(account_admin.admin_site, request, account),
        "title": "Replace webhook secret" if account.webhook_secret else "Create webhook secret",
        "form": form,
        "masked": "" if (problem := webhook_secret_problem(account)) else masked_webhook_secret(account),
        "problem": problem,
        "seen_field": SEEN_FIELD,
        "seen": digest_value(account.webhook_secret),
    }
    return TemplateResponse(request, "admin/llm/account/webhook_question.html", context)


@transaction.atomic
def _replace(account_admin: GatewayAdmin[Account], request: HttpRequest, account: Account) -> str | None:
    """None if the secret has changed since the page was opened: another user has just handed out the new one."""
    stored = account_admin.lock_for_change(account)
    if stored is None or digest_value(stored.webhook_secret) != request.POST.get(SEEN_FIELD):
        return None
    Account.objects.filter(pk=account.pk).update(webhook_secret="")
    account.webhook_secret = ""
    secret = ensure_webhook_secret(account)
    account_admin.log_change(request, account, f"Created webhook secret {masked_webhook_secret(account)}.")
    remember_made(request, account.pk)
    return secret


def _answer_repeated(account_admin: GatewayAdmin[Account], request: HttpRequest, account: Account) -> HttpResponse:
    said = "This form was already submitted. Its secret can't be shown again; if you have lost it, replace it."
    account_admin.message_user(request, said, messages.WARNING)
    return HttpResponseRedirect(reverse("admin:llm_account_change", args=(account.pk,)))


def _answer_changed(account_admin: GatewayAdmin[Account], request: HttpRequest, account: Account) -> HttpResponse:
    said = "The webhook secret was changed since the page was opened. It was not replaced again."
    account_admin.message_user(request, said, messages.WARNING)
    return HttpResponseRedirect(reverse("admin:llm_account_change", args=(account.pk,)))


def _secret_page(site: AdminSite, request: HttpRequest, account: Account, secret: str) -> HttpResponse:
    """Must not be stored anywhere: cache, session, message or log, nor in a response rendered later."""
    context = {**_page(site, request, account), "title": "Your new webhook secret", "secret": secret}
    response = render(request, "admin/llm/account/webhook_secret.html", context)
    response["Cache-Control"] = "no-store"
    return response


def _page(site: AdminSite, request: HttpRequest, account: Account) -> dict[str, object]:
    return {**site.each_context(request), "opts": Account._meta, "account": account}
