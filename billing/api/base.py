"""What every endpoint of the management API builds on: who may call it, whose rows it returns, how it answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

from django.db.models import Model, QuerySet
from django.http import HttpResponse
from django.urls import Resolver404, resolve
from django.utils.encoding import escape_uri_path, iri_to_uri
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.exceptions import NotFound, PermissionDenied
from rest_framework.generics import GenericAPIView
from rest_framework.pagination import BasePagination
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from billing.api.authentication import CredentialAuthentication, deprecation_headers
from billing.api.errors import handle_exception
from billing.api.filters import StrictFilters
from billing.api.pagination import IdPagination
from billing.api.parsers import BoundedJSONParser
from billing.api.viewer import Viewer, viewer_of
from billing.enums import TokenScope
from billing.models import StaffToken
from billing.staff.plain_tokens import PlainToken
from llm.api.views import OneRenderer
from llm.keys import Caller
from llm.signin import address_of
from llm.trail.actor import Actor, set_actor

_READS_ONLY = "API keys have read-only access here. To start something, such as an export, contact the gateway's staff."

_M = TypeVar("_M", bound=Model)


class MayAsk(BasePermission):
    """Staff by their permissions; a 403 names the missing one. Customers may read and start nothing."""

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
        if isinstance(request.auth, StaffToken):
            _require_scope(request.auth, view.scopes.get(request.method or "", TokenScope.READ))
        return True


def _require_scope(token: StaffToken, scope: TokenScope) -> None:
    if scope not in token.scopes:
        raise PermissionDenied(f"This needs a token with the scope “{scope}”.")


class ManagementView(GenericAPIView[Any]):
    """permissions: by method; other methods need that of GET.
    scopes: what a token needs, by method; other methods need the scope to read.

    account_path: lookup from a row to its account; customers see only their own rows.
    """

    permissions: ClassVar[dict[str, str]]
    scopes: ClassVar[dict[str, TokenScope]] = {}
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

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        actor = _actor(request)
        set_actor(lambda: actor)

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "viewer": self.viewer}

    def finalize_response(self, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        answer = super().finalize_response(request, response, *args, **kwargs)
        # Not `request.auth`, which would authenticate again after a failure.
        if isinstance(token := getattr(request, "_auth", None), PlainToken):
            for name, value in deprecation_headers(token).items():
                answer[name] = value
        return answer

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return handle_exception


def _actor(request: Request) -> Actor:
    """For the audit log."""
    address, via = address_of(request), "api"
    if isinstance(request.auth, StaffToken):
        via = f"API token {request.auth.masked}"
    if isinstance(request.user, Caller):
        return Actor(via=f"API key {request.user.key_id}", address=address)
    return Actor(request.user.pk, request.user.get_username(), via, address)


class NothingHereView(ManagementView):
    """The answer to every unknown path, so that it is JSON too.

    A missing trailing slash is redirected for safe methods; others would lose their body.
    """

    schema = None
    authentication_classes = ()
    permission_classes = ()

    def dispatch(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        path = f"{request.path}/"
        if request.method in ("GET", "HEAD") and not request.path.endswith("/") and _is_served(path):
            query = request.META["QUERY_STRING"]
            location = f"{escape_uri_path(path)}?{query}" if query else escape_uri_path(path)
            return HttpResponse(status=301, headers={"location": iri_to_uri(location)}, content_type="application/json")
        return super().dispatch(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise NotFound("Not found. /docs/ lists all paths; each ends with a slash.")


def _is_served(path: str) -> bool:
    try:
        return resolve(path).url_name != "nothing"
    except Resolver404:
        return False
