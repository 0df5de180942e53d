"""What every endpoint of the management API stands on: who may ask, whose rows it sees, how it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from django.db.models import Model, QuerySet
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.generics import GenericAPIView
from rest_framework.pagination import BasePagination
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.authentication import CredentialAuthentication
from billing.api.errors import handle_exception
from billing.api.filters import StrictFilters
from billing.api.pagination import IdPagination
from billing.api.parsers import BoundedJSONParser
from billing.api.viewer import Viewer, viewer_of
from llm.api.views import OneRenderer

_READS_ONLY = "An API key only reads here. Whatever is to be started, such as an export, ask the gateway's staff for."

_M = TypeVar("_M", bound=Model)


class MayAsk(BasePermission):
    """Staff by their permissions, 403 says which one is needed. Customers read, and start nothing."""

    def has_permission(self, request: Request, view: Any) -> bool:
        viewer = viewer_of(request)
        if viewer.account_id is not None:
            if request.method not in SAFE_METHODS:
                raise PermissionDenied(_READS_ONLY)
            return True
        needed = view.permissions.get(request.method or "", view.permissions["GET"])
        if not request.user.is_authenticated:
            return False
        if not (request.user.is_staff and request.user.has_perm(needed)):
            raise PermissionDenied(f"This needs the permission {needed}.")
        return True


class ManagementView(GenericAPIView[Any]):
    """permissions: by method, that of GET for all others.

    account_path: from the rows to their account; a customer sees only those of its own.
    """

    permissions: ClassVar[dict[str, str]]
    account_path: ClassVar[str] = "account"

    authentication_classes: Sequence[type[BaseAuthentication]] = (CredentialAuthentication, SessionAuthentication)
    permission_classes: Sequence[type[BasePermission]] = (MayAsk,)
    parser_classes = (BoundedJSONParser,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = OneRenderer
    filter_backends = (StrictFilters,)
    pagination_class: type[BasePagination] | None = IdPagination
    http_method_names = ["get", "head", "post"]

    @property
    def viewer(self) -> Viewer:
        return viewer_of(self.request)

    def of_viewer(self, rows: QuerySet[_M]) -> QuerySet[_M]:
        account_id = self.viewer.account_id
        return rows if account_id is None else rows.filter(**{self.account_path: account_id})

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "viewer": self.viewer}

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return handle_exception


class NothingHereView(ManagementView):
    """Whatever other path is asked for, so that it too is answered as JSON."""

    schema = None
    authentication_classes = ()
    permission_classes = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise NotFound("There is no such path. /docs/ shows all that there are.")
