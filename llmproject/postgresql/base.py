"""Django's PostgreSQL backend, in which requests that Django serves may log in with a role of their own.

The role has a CONNECTION LIMIT: whatever a process does, pages take no connection that calls need. It isn't a second
alias in DATABASES: a transaction on one would not cover writes through the other.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql import base

from llmproject.postgresql import serves_page

PAGES_APPLICATION_NAME = "llm-pages"


class DatabaseWrapper(base.DatabaseWrapper):
    """PAGES of its settings: the parameters that differ for pages' connections."""

    def get_connection_params(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super().get_connection_params()
        if serves_page.get():
            parameters |= {"application_name": PAGES_APPLICATION_NAME, **self.settings_dict.get("PAGES", {})}
        return parameters
