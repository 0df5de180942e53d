"""Every parameter of every endpoint, as the API's own description names them, with values that nobody expects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from drf_spectacular.generators import SchemaGenerator

from tests.billing.api.asking import API, Asker, customer, staff_asker
from tests.billing.factories import make_account, make_invoice
from tests.llm.admin.factories import save, usage_row

pytestmark = [pytest.mark.slow, pytest.mark.django_db]

ODD = (
    "",
    "0",
    "-1",
    "1e400",
    "9" * 19,
    "9" * 5000,
    "a\0b",
    "\ud7ff\uffff😀",
    "%s %00",
    "'; DROP TABLE llm_usage; --",
    "../../etc/passwd",
    "x" * 300,
    "[]",
    "0001-01-01",
    "9999-12-31",
    "2026-1-5",
    "9999-12",
    "0000-00",
    "١٢",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
)
PERMISSIONS = ("view_account", "view_limit", "view_dailyusage", "view_usage", "view_invoice", "view_exportjob")


def parameters() -> list[tuple[str, str, str]]:
    """Path, place (path or query) and name."""
    paths: dict[str, Any] = SchemaGenerator().get_schema(request=None, public=True)["paths"]  # type: ignore[no-untyped-call]
    return [
        (path, parameter["in"], parameter["name"])
        for path, methods in paths.items()
        if path.startswith(API) and "schema" not in path
        for parameter in methods.get("get", {}).get("parameters", [])
    ]


def odd_urls(path: str, place: str, name: str) -> Iterator[str]:
    """The path's other parameters are as they should be, or nearly."""
    others = {"pk": "1", "id": "1", "name": "invoices.csv"}
    for value in ODD:
        filled = path.removeprefix(API)
        for other, usual in others.items():
            odd = quote(value, safe="") if place == "path" and name == other else usual
            filled = filled.replace(f"{{{other}}}", odd)
        yield filled if place == "path" else f"{filled}?{name}={quote(value, safe='')}"


def test_the_description_names_what_the_walk_needs() -> None:
    found = parameters()

    assert {path for path, _, _ in found} >= {f"{API}{name}/" for name in ("accounts", "calls", "invoices", "usage")}
    assert {name for path, _, name in found if path == f"{API}calls/"} == {
        "account",
        "cursor",
        "end_user",
        "from",
        "key",
        "model",
        "page_size",
        "provider",
        "provider_instance",
        "request_id",
        "status",
        "tag",
        "to",
    }
    assert len(found) > 30


@pytest.mark.parametrize(("path", "place", "name"), parameters())
def test_no_value_of_a_parameter_breaks_an_endpoint(path: str, place: str, name: str) -> None:
    """The client raises what a view raises, so a failure of ours is more than a status here."""
    key, as_customer = customer(make_account())
    save(usage_row(key))
    make_invoice()
    staff: Asker = staff_asker(*PERMISSIONS)

    urls = list(odd_urls(path, place, name))
    asked = [(staff, url) for url in urls] + [(as_customer, url) for url in urls[:: len(urls) // 4]]
    for asker, url in asked:
        response = asker.get(url)
        assert response.status_code in (200, 400, 404), (url, response.content)
        if response.status_code != 200:
            assert list(response.json()) == ["detail"], url
