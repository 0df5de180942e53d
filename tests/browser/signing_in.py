"""The page for signing in."""

from __future__ import annotations

from playwright.sync_api import Page


def fill_sign_in(page: Page, name: str, password: str) -> None:
    """page: shows that page."""
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_load_state()
