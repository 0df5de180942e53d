"""Several users editing one object: a form carries the version that its page showed, and an outdated one is refused.

Anything that prevents a save at the last moment (values changed meanwhile, a row added meanwhile, a rule that has begun
to apply) becomes an error of the form, which keeps what was typed. Values are read and compared under the row's lock,
in the transaction that saves them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from django import forms
from django.contrib import admin
from django.contrib.admin.options import TO_FIELD_VAR
from django.contrib.admin.utils import flatten_fieldsets, unquote
from django.core.exceptions import ValidationError
from django.db import IntegrityError, OperationalError, models, transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst, get_text_list

from llm.admin.trail.describe import Names, describe_changes, model_of
from llm.db.violations import is_lock_conflict, is_unique_violation
from llm.enums import AuditAction
from llm.models import AuditEntry

_M = TypeVar("_M", bound=models.Model)

if TYPE_CHECKING:
    _Base = admin.ModelAdmin
else:

    class _Base:
        """Only so that it can be subscripted."""

        def __class_getitem__(cls, item: object) -> type:
            return cls


VERSION_FIELD = "form_version"
MAX_ENTRIES_TOLD = 50
MAX_CHANGES_TOLD = 10
"""In the sentence of a refusal; the audit log has all of them."""
_BUSY = "Someone else is changing this right now. Nothing was saved: try again in a moment."
_REFUSAL = "_refusal_of_the_save"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_WRITTEN = re.compile(r"\A\d{1,15}( [\w.+-]+=[0-9a-f]{16})*\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class FormVersion:
    """What a page showed for editing. digests: by field name, or by prefix of a table of rows."""

    opened_at: datetime
    digests: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> FormVersion | None:
        """None unless it is a version that one of our pages has sent."""
        if not _WRITTEN.match(text):
            return None
        milliseconds, *pairs = text.split(" ")
        digests = dict(pair.split("=", 1) for pair in pairs)
        return cls(_EPOCH + timedelta(milliseconds=int(milliseconds)), digests)

    def __str__(self) -> str:
        milliseconds = (self.opened_at - _EPOCH) // timedelta(milliseconds=1)
        return " ".join([str(milliseconds), *(f"{name}={value}" for name, value in self.digests.items())])

    def differences(self, other: FormVersion) -> list[str]:
        """Names in this version's order; a name that only one of the two has differs too."""
        names = dict.fromkeys([*self.digests, *other.digests])
        return [name for name in names if self.digests.get(name) != other.digests.get(name)]


def digest_value(value: Any) -> str:
    """Digest of a value shown on a page, to tell later whether it has changed."""
    return hashlib.sha256(repr(_plain(value)).encode(errors="backslashreplace")).hexdigest()[:16]


def digest_row(row: models.Model) -> str:
    """Digest of all stored columns."""
    return digest_value([(field.attname, getattr(row, field.attname)) for field in row._meta.concrete_fields])


def lock_row(row: _M) -> _M | None:
    """The current row, locked until the transaction ends; None if it is gone.

    no_key: a stronger lock would block transactions that only refer to it, the books' among them.
    """
    return type(row)._base_manager.select_for_update(no_key=True, of=("self",)).filter(pk=row.pk).first()


class ConcurrentEdits(_Base[_M]):
    """`save_model` may raise ValidationError with sentences: nothing is saved, and the form shows them."""

    def why_unchangeable(self, obj: _M) -> str:
        """Why this object can't be changed any more, as a sentence; "" if it can."""
        return ""

    def lock_for_change(self, obj: _M) -> _M | None:
        """`lock_row`. Override it to lock other rows before this one."""
        return lock_row(obj)

    def has_change_permission(self, request: HttpRequest, obj: _M | None = None) -> bool:
        """After a refused save, the form is shown again with the reason and what was typed."""
        if not super().has_change_permission(request, obj):
            return False
        return obj is None or was_refused(request) or not self.why_unchangeable(obj)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method == "POST":
            try:
                with transaction.atomic():
                    self._require_current(request, object_id)
                    return super().changeform_view(request, object_id, form_url, extra_context)
            except ValidationError as error:
                _refuse(request, error.messages)
            except IntegrityError as error:
                _refuse(request, [self._sentence_on(error)])
            except OperationalError as error:
                if not is_lock_conflict(error):
                    raise
                _refuse(request, [_BUSY])
        return super().changeform_view(request, object_id, form_url, extra_context)

    def get_form(self, request: HttpRequest, obj: _M | None = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        sentences = _refusal_of(request)
        return form if sentences is None else _refused_form(form, sentences)

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: _M | None = None,
    ) -> HttpResponse:
        if change and obj is not None:
            context = {**context, **self._version_context(request, context, obj)}
        return super().render_change_form(request, context, add, change, form_url, obj)

    def _version_context(self, request: HttpRequest, context: Mapping[str, Any], obj: _M) -> dict[str, Any]:
        """A form that is shown again keeps its version: its page showed the same values."""
        if request.method != "POST":
            tables = [
                each.formset for each in context["inline_admin_formsets"] if _is_editable(request, each.opts, obj)
            ]
            return {VERSION_FIELD: _version_of(context["adminform"].form, tables)}
        found = {VERSION_FIELD: request.POST.get(VERSION_FIELD, "")}
        stored = self.model._base_manager.filter(pk=obj.pk).first()
        # The object already has what was typed, so its name may be the new one, which isn't stored.
        return {**found, "subtitle": str(stored)} if stored is not None and context.get("subtitle") else found

    def _require_current(self, request: HttpRequest, object_id: str | None) -> None:
        """Locks the object. Raises ValidationError if it differs from what the page showed, or can't be changed.

        Missing permissions and missing objects are left to Django.
        """
        stored = self._find(request, object_id)
        if stored is None or self.lock_for_change(stored) is None:
            return
        # Read again, with the page's own query: the first reading was before the lock.
        obj = self._find(request, object_id)
        if obj is None or not (self.has_change_permission(request, obj) or self.why_unchangeable(obj)):
            return
        if why := self.why_unchangeable(obj):
            raise ValidationError(why)
        opened = FormVersion.parse(request.POST.get(VERSION_FIELD, ""))
        if opened is None:
            raise ValidationError(_to_reload(request, "It is unknown which version of this page you opened."))
        form_class = self._form_class(request, obj)
        tables = {each.prefix: each for each in self._tables(request, obj)}
        form = form_class(instance=obj)
        changed = opened.differences(_version_of(form, tables.values()))
        if changed and self._changes_anything(request, obj, form_class):
            names = [self._label_of(name, form, tables) for name in changed]
            entries = _entries_since(opened.opened_at, obj, tables.values())
            sentences: list[str] = [_to_reload(request, self._told(request, names, entries))]
            if values := _values_in(entries):
                sentences.append(f"Since then: {values}.")
            raise ValidationError(sentences)

    def _find(self, request: HttpRequest, object_id: str | None) -> _M | None:
        if object_id is None or "_saveasnew" in request.POST:
            return None
        to_field = request.POST.get(TO_FIELD_VAR, request.GET.get(TO_FIELD_VAR))
        if to_field and not self.to_field_allowed(request, to_field):
            return None
        return self.get_object(request, unquote(object_id), to_field)

    def _form_class(self, request: HttpRequest, obj: _M) -> Any:
        fields = flatten_fieldsets(self.get_fieldsets(request, obj))
        return self.get_form(request, obj, change=True, fields=fields)

    def _tables(self, request: HttpRequest, obj: _M, data: Any = None) -> list[Any]:
        """Rows of other models that the object's page edits."""
        return [
            table(data, instance=obj, prefix=table.get_default_prefix(), queryset=inline.get_queryset(request))
            for table, inline in self.get_formsets_with_inlines(request, obj)
            if _is_editable(request, inline, obj)
        ]

    def _changes_anything(self, request: HttpRequest, obj: _M, form_class: Any) -> bool:
        """False if everything sent is stored already: the same form again, after a double click."""
        if form_class(request.POST, request.FILES, instance=obj).changed_data:
            return True
        return any(table.has_changed() for table in self._tables(request, obj, request.POST))

    def _label_of(self, name: str, form: Any, tables: Mapping[str, Any]) -> str:
        if name in tables:
            # Not the table's title, which is a sentence.
            return str(capfirst(str(tables[name].model._meta.verbose_name_plural)))
        label = form.fields[name].label if name in form.fields else None
        known = {field.name: field for field in self.opts.get_fields()}
        return str(capfirst(str(label or getattr(known.get(name), "verbose_name", name.replace("_", " ")))))

    def _told(self, request: HttpRequest, names: Sequence[str], entries: Iterable[AuditEntry]) -> SafeString:
        who = get_text_list(_authors(entries, request.user.pk), "and")
        what = get_text_list([f"“{name}”" for name in names], "and")
        told = f"{who} changed {what}" if who else f"{what} changed"
        return format_html("{} after you opened this page.", f"Y{told[1:]}" if told.startswith("you ") else told)

    def _sentence_on(self, error: IntegrityError) -> str:
        if is_unique_violation(error):
            return (
                f"Another {self.opts.verbose_name} with these values already exists: someone else added it in the "
                "meantime. Nothing was saved."
            )
        return (
            "Something this depends on was changed or removed in the meantime, or these values don't fit together. "
            "Nothing was saved: check them and try again."
        )


def _entries_since(since: datetime, obj: models.Model, tables: Iterable[Any]) -> list[AuditEntry]:
    """What the audit log says of the object and of the rows that its page edits. tables: formsets."""
    rows = {str(obj._meta.db_table): [str(obj.pk)]}
    for each in tables:
        rows[str(each.model._meta.db_table)] = [str(row.pk) for row in each.get_queryset()]
    links = [str(field.m2m_db_table()) for field in obj._meta.many_to_many]
    condition = Q(table_name__in=[*rows, *links], action=AuditAction.DELETED) | Q(table_name__in=links)
    for table, ids in rows.items():
        condition |= Q(table_name=table, row_id__in=ids)
    # The log's clock is the database's, which has milliseconds on SQLite.
    found = AuditEntry.objects.filter(condition, at__gte=since - timedelta(milliseconds=1)).order_by("id")
    return [
        entry
        for entry in found[:MAX_ENTRIES_TOLD]
        if entry.row_id in rows.get(entry.table_name, ()) or _refers_to(entry, obj)
    ]


def _refers_to(entry: AuditEntry, obj: models.Model) -> bool:
    model = model_of(entry.table_name)
    if model is None:
        return False
    columns = [field.column for field in model._meta.concrete_fields if field.related_model is type(obj)]
    return any((entry.after or entry.before or {}).get(column) == str(obj.pk) for column in columns)


def _authors(entries: Iterable[AuditEntry], own_id: Any) -> list[str]:
    names = {
        (entry.user_id, entry.actor or entry.via): "you" if entry.user_id == own_id else entry.actor or entry.via
        for entry in entries
    }
    return [name for name in dict.fromkeys(names.values()) if name]


def _values_in(entries: Sequence[AuditEntry]) -> str:
    names = Names(entries)
    changes = [str(change) for entry in entries for change in describe_changes(entry, names)]
    return "; ".join(changes[:MAX_CHANGES_TOLD])


def _to_reload(request: HttpRequest, why: str) -> SafeString:
    return format_html(
        '{} Nothing was saved: <a href="{}">reload the page</a> and try again.', why, request.get_full_path()
    )


def was_refused(request: HttpRequest) -> bool:
    """Whether the page shows a form again whose save was refused. Nothing more is saved then."""
    return _refusal_of(request) is not None


def _refuse(request: HttpRequest, sentences: Sequence[str]) -> None:
    setattr(request, _REFUSAL, list(sentences))


def _refusal_of(request: HttpRequest) -> list[str] | None:
    found: list[str] | None = getattr(request, _REFUSAL, None)
    return found


def _refused_form(form_class: Any, sentences: Sequence[str]) -> Any:
    class RefusedForm(form_class):  # type: ignore[misc]
        """Never valid, so that Django shows it again."""

        def full_clean(self) -> None:
            super().full_clean()
            if self.is_bound:
                self.add_error(None, ValidationError(list(sentences)))

    return RefusedForm


def _version_of(form: forms.BaseForm, tables: Iterable[Any]) -> FormVersion:
    """tables: formsets. For forms, covers editable fields that show something stored."""
    digests = {
        name: digest_value(form.get_initial_for_field(field, name))
        for name, field in form.fields.items()
        if name in form.initial and not field.disabled
    }
    for table in tables:
        rows = [(each.instance.pk, _plain(each.initial)) for each in table.initial_forms]
        digests[table.prefix] = digest_value(sorted(rows, key=repr))
    return FormVersion(timezone.now(), digests)


def _is_editable(request: HttpRequest, inline: Any, obj: models.Model) -> bool:
    return any(
        may(request, obj)
        for may in (inline.has_change_permission, inline.has_add_permission, inline.has_delete_permission)
    )


def _plain(value: Any) -> Any:
    """A string that is the same for the same value, in every process."""
    if isinstance(value, models.Model):
        return value.pk
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, Mapping):
        return sorted((str(name), _plain(each)) for name, each in value.items())
    if isinstance(value, list | tuple | set | frozenset | models.QuerySet):
        plain = [_plain(each) for each in value]
        # The order of chosen rows doesn't matter.
        are_rows = any(isinstance(each, models.Model) for each in value)
        return sorted(plain, key=repr) if are_rows else plain
    return value
