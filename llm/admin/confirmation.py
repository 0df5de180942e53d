"""Actions that change a state: a button on an object's page and a bulk action of its list, each behind a confirmation.

A GET never changes anything: it asks, and the answer is a POST with a CSRF token. The answer says which rows were
shown; one that has changed since is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IS_POPUP_VAR
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse

from llm.admin.base import GatewayAdmin
from llm.admin.concurrent_edits import digest_row

_M = TypeVar("_M", bound=models.Model)

MAX_AT_ONCE = 500
"""Django accepts at most 1000 fields in a form, and each chosen row is one."""

SEEN_FIELD = "seen"
_CHANGED = {
    False: "was changed since this page was opened, and was left as it is. Look at it and try again.",
    True: "were changed since this page was opened, and were left as they are. Look at them and try again.",
}


@dataclass(frozen=True, slots=True)
class ConfirmedAction(Generic[_M]):
    """perform: does it and returns a description for the object's history; None if there was nothing to do.

    consequence: what happens to callers, in one sentence. done: "suspended", for "2 accounts suspended."
    """

    name: str
    label: str
    consequence: str
    done: str
    applies_to: Callable[[_M], bool]
    perform: Callable[[_M], str | None]
    is_dangerous: bool = False


@dataclass(frozen=True, slots=True)
class ObjectButton:
    label: str
    url: str
    is_dangerous: bool = False


class ConfirmedActionsAdmin(GatewayAdmin[_M]):
    """Set `confirmed_actions`; the templates of `admin/llm/` render the rest."""

    confirmed_actions: Sequence[ConfirmedAction[_M]] = ()

    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_action"
        view = self.admin_site.admin_view(self.object_action_view)
        return [path("<int:object_id>/action/<slug:action_name>/", view, name=name), *super().get_urls()]

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        actions: dict[str, Any] = super().get_actions(request)
        if IS_POPUP_VAR in request.GET or not self.has_change_permission(request):
            return actions
        plural = self.opts.verbose_name_plural
        for action in self.confirmed_actions:
            actions[action.name] = (_bulk(action), action.name, f"{action.label} selected {plural}")
        return actions

    def object_buttons(self, obj: _M) -> list[ObjectButton]:
        return [
            ObjectButton(
                action.label, reverse(self._url_name("action"), args=(obj.pk, action.name)), action.is_dangerous
            )
            for action in self.confirmed_actions
            if action.applies_to(obj)
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        obj = self.get_object(request, object_id)
        may_change = obj is not None and self.has_change_permission(request, obj)
        buttons = self.object_buttons(obj) if obj is not None and may_change else []
        return super().change_view(request, object_id, form_url, {"object_buttons": buttons, **(extra_context or {})})

    def object_action_view(self, request: HttpRequest, object_id: int, action_name: str) -> HttpResponse:
        obj, action = self.get_object(request, str(object_id)), self._action(action_name)
        if obj is None or action is None:
            raise Http404
        if not self.has_change_permission(request, obj):
            raise PermissionDenied
        back = reverse(self._url_name("change"), args=(obj.pk,))
        if request.method == "POST" and SEEN_FIELD in request.POST:
            self._perform_all(request, action, [obj])
            return HttpResponseRedirect(back)
        return self.confirmation_page(request, action, [obj], back=back)

    def bulk_action(
        self, request: HttpRequest, action: ConfirmedAction[_M], queryset: models.QuerySet[_M]
    ) -> HttpResponse | None:
        if not self.has_change_permission(request):
            raise PermissionDenied
        objects = list(queryset[: MAX_AT_ONCE + 1])
        if len(objects) > MAX_AT_ONCE:
            self.message_user(request, f"Choose at most {MAX_AT_ONCE} at once.", messages.ERROR)
            return None
        if request.POST.get("confirmed") and SEEN_FIELD in request.POST:
            self._perform_all(request, action, objects)
            return None
        return self.confirmation_page(request, action, objects, back=reverse(self._url_name("changelist")))

    def confirmation_page(
        self, request: HttpRequest, action: ConfirmedAction[_M], objects: Sequence[_M], *, back: str
    ) -> HttpResponse:
        names = self.opts.verbose_name if len(objects) == 1 else f"{len(objects)} {self.opts.verbose_name_plural}"
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"{action.label} {names}",
            "action": action,
            "changing": [obj for obj in objects if action.applies_to(obj)],
            "unaffected": [obj for obj in objects if not action.applies_to(obj)],
            "selected": objects,
            "seen_field": SEEN_FIELD,
            "seen": " ".join(f"{obj.pk}={digest_row(obj)}" for obj in objects),
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
            "back": back,
        }
        return TemplateResponse(request, "admin/llm/confirm_action.html", context)

    def _perform_all(self, request: HttpRequest, action: ConfirmedAction[_M], objects: Sequence[_M]) -> None:
        seen = set(request.POST[SEEN_FIELD].split())
        results = [self._perform(request, action, obj, seen) for obj in objects]
        done = results.count(True)
        if changed := results.count(None):
            names = self.opts.verbose_name if changed == 1 else self.opts.verbose_name_plural
            self.message_user(request, f"{changed} {names} {_CHANGED[changed > 1]}", messages.WARNING)
            if not done:
                return
        name = self.opts.verbose_name if done == 1 else self.opts.verbose_name_plural
        level = messages.SUCCESS if done else messages.WARNING
        self.message_user(request, f"{done or 'No'} {name} {action.done}.", level)

    @transaction.atomic
    def _perform(
        self, request: HttpRequest, action: ConfirmedAction[_M], obj: _M, seen: Collection[str]
    ) -> bool | None:
        """Whether it was done; None if the row is no longer what the page showed."""
        stored = self.lock_for_change(obj)
        if stored is None or f"{obj.pk}={digest_row(stored)}" not in seen:
            return None
        history = action.perform(obj) if action.applies_to(obj) else None
        if history is None:
            return False
        self.log_change(request, obj, history)
        return True

    def _action(self, name: str) -> ConfirmedAction[_M] | None:
        return next((action for action in self.confirmed_actions if action.name == name), None)

    def _url_name(self, page: str) -> str:
        return f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_{page}"


def _bulk(action: ConfirmedAction[_M]) -> Callable[..., HttpResponse | None]:
    def run(
        model_admin: ConfirmedActionsAdmin[_M], request: HttpRequest, queryset: models.QuerySet[_M]
    ) -> HttpResponse | None:
        return model_admin.bulk_action(request, action, queryset)

    return run
