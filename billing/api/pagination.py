"""Keyset pagination, newest first: the thousandth page costs as little as the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ValidationError as FieldError
from django.db.models import QuerySet
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request
from rest_framework.views import APIView

from llm.models import OpenCall, Usage
from llm.models.usage import merge_calls

MAX_A_PAGE = 1000


class AllCalls:
    """Open and closed calls as one list: as much of a queryset as `IdPagination` needs."""

    model = Usage

    def __init__(self, opened: QuerySet[OpenCall], closed: QuerySet[Usage]) -> None:
        self._opened, self._closed = opened, closed

    def order_by(self, *names: str) -> AllCalls:
        return AllCalls(self._opened.order_by(*names), self._closed.order_by(*names))

    def filter(self, **conditions: Any) -> AllCalls:
        return AllCalls(self._opened.filter(**conditions), self._closed.filter(**conditions))

    def __getitem__(self, page: slice) -> list[Usage]:
        opened = list(self._opened[: page.stop])
        newest_first = self._closed.query.order_by == ("-id",)
        return merge_calls(opened, self._closed[: page.stop], newest_first=newest_first)[page]


class IdPagination(CursorPagination):
    ordering = "-id"
    page_size = 100
    page_size_query_param = "page_size"
    max_page_size = MAX_A_PAGE
    page_size_query_description = f"Rows per page, at most {MAX_A_PAGE}."

    def paginate_queryset(
        self, queryset: QuerySet[Any] | AllCalls | Sequence[Any], request: Request, view: APIView | None = None
    ) -> list[Any] | None:
        if not isinstance(queryset, QuerySet | AllCalls):
            raise TypeError("only querysets can be paginated")
        self._primary_key = queryset.model._meta.pk
        return super().paginate_queryset(queryset, request, view)  # type: ignore[arg-type]  # AllCalls is like one

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Raises ValidationError for anything but a cursor of ours, however it fails to decode."""
        try:
            cursor = super().decode_cursor(request)
            if cursor is not None and cursor.position is not None:
                self._primary_key.to_python(cursor.position)
        except (NotFound, FieldError) as error:
            raise ValidationError({"cursor": "Invalid cursor: follow `next` and `previous`."}) from error
        return cursor

    def get_page_size(self, request: Request) -> int | None:
        text = request.query_params.get("page_size", str(self.page_size))
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MAX_A_PAGE):
            raise ValidationError({"page_size": f"Must be an integer from 1 to {MAX_A_PAGE}."})
        return int(text)
