"""What all our admin pages bear."""

from __future__ import annotations

import pytest
from django.test import Client

pytestmark = pytest.mark.slow


@pytest.mark.django_db
@pytest.mark.parametrize("chosen", ["x", "", "9" * 30, "-1e5", "\0"])
@pytest.mark.parametrize(
    ("page", "action"),
    [("billing/invoice", "submit_selected"), ("llm/apikey", "revoke_selected"), ("llm/usage", "delete_selected")],
)
def test_an_action_on_what_is_no_row_does_nothing(admin_client: Client, page: str, action: str, chosen: str) -> None:
    url = f"/admin/{page}/"
    answer = admin_client.post(url, {"action": action, "_selected_action": [chosen]}, follow=True)
    assert answer.status_code == 200
