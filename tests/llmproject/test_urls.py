"""The API's description and its page."""

from __future__ import annotations

import pytest
from django.test import Client

pytestmark = pytest.mark.django_db


def test_the_description_names_every_endpoint_that_callers_use(client: Client) -> None:
    schema = client.get("/api/v1/schema/", headers={"accept": "application/json"}).json()
    gateway = {path for path in schema["paths"] if not path.startswith("/api/v1/")}
    assert gateway == {"/api/chat", "/v1/chat/completions", "/v1/models", "/v1/models/{model}"}
    assert schema["components"]["securitySchemes"]["apiKey"] == {"type": "http", "scheme": "bearer"}


def test_the_page_loads_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/docs/").content.decode()
    assert "swagger-ui" in page
    assert "//" not in page.replace("http://testserver", "")


def test_the_root_leads_to_the_admin(client: Client) -> None:
    assert client.get("/").headers["location"] == "/admin/"
