"""Every path. The gateway's own are here for the API description: `asgi.py` takes them before Django does."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerSplitView

from billing.api.base import NothingHereView
from llm.admin.search import search_view
from llmproject.schema import SchemaView

# Paths that Django itself would answer in HTML.
handler400 = "llmproject.refusals.bad_request"
handler403 = "llmproject.refusals.permission_denied"
handler404 = "llmproject.refusals.page_not_found"
handler500 = "llmproject.refusals.server_error"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index"), name="home"),
    # allauth's name of it; the admin's own is admin:login, with the same view.
    path("admin/login/", admin.site.login, name="account_login"),
    path("admin/search/", admin.site.admin_view(search_view), name="search"),
    path("admin/", admin.site.urls),
    path("api/v1", NothingHereView.as_view(), name="nothing"),
    path("api/v1/schema/", SchemaView.as_view(), name="schema"),
    path("api/v1/", include("billing.api.urls")),
    path("", include("llm.api.urls")),
    # The split view has its script in a separate file, as our content security policy requires.
    path("docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
]
