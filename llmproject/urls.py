"""Every path. The gateway's own are here for the API's description: `asgi.py` takes them before Django does."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularSwaggerSplitView

from billing.api.base import NothingHereView
from llmproject.schema import SchemaView

# What Django itself would answer in HTML.
handler400 = "llmproject.refusals.bad_request"
handler403 = "llmproject.refusals.permission_denied"
handler404 = "llmproject.refusals.page_not_found"
handler500 = "llmproject.refusals.server_error"

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="admin:index"), name="home"),
    # The name by which allauth knows it; the admin's own is admin:login, and this is its view.
    path("admin/login/", admin.site.login, name="account_login"),
    path("admin/", admin.site.urls),
    path("api/v1", NothingHereView.as_view(), name="nothing"),
    path("api/v1/schema/", SchemaView.as_view(), name="schema"),
    path("api/v1/", include("billing.api.urls")),
    path("", include("llm.api.urls")),
    # The split view keeps its script in a file of its own, which our content security policy asks for.
    path("docs/", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
]
