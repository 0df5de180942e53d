"""The pictures in the documents: python -m tests.browser.screenshots, or make screenshots.

A database of its own gets a year of invented customers (`manage.py demo_data`), a server shows it, and chromium
takes the pictures into docs/img.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.signing_in import fill_sign_in

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "docs" / "img"
CHROMIUM = "/usr/bin/chromium"
PORT = 21888
BASE = f"http://127.0.0.1:{PORT}"
USER, PASSWORD = "demo", secrets.token_urlsafe(20)
START_SECONDS = 60
MAX_HEIGHT = 1500


@dataclass(frozen=True, slots=True)
class Picture:
    """path: where to go; follows: a selector of the link to follow there. height: at most so much of the page."""

    name: str
    path: str
    follows: str = ""
    width: int = 1440
    scheme: Any = "light"
    height: int = MAX_HEIGHT


QUEUE = "/admin/billing/invoice/"
IN_REVIEW = f"{QUEUE}?state__exact=in_review"
ROW = "#result_list tbody th a"
PICTURES = (
    Picture("admin-index", "/admin/"),
    Picture("admin-index-dark", "/admin/", scheme="dark"),
    Picture("admin-explorer", "/admin/billing/dailyusage/?by=account&then=model"),
    Picture("admin-account", "/admin/search/?q=Contoso+Bank"),
    Picture("admin-account-narrow", "/admin/search/?q=Contoso+Bank", width=390),
    Picture("admin-key", "/admin/llm/apikey/?q=claims", follows=ROW),
    Picture("admin-queue", QUEUE, height=1100),
    Picture("admin-queue-dark", QUEUE, scheme="dark", height=1100),
    Picture("admin-queue-narrow", QUEUE, width=390),
    Picture("admin-invoice", IN_REVIEW, follows=ROW),
    Picture("admin-invoice-dark", IN_REVIEW, follows=ROW, scheme="dark"),
    Picture("admin-invoice-narrow", IN_REVIEW, follows=ROW, width=390),
)


def main() -> None:
    with TemporaryDirectory(prefix="llm-pictures-") as folder, server(environment(folder)), sync_playwright() as player:
        browser = player.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for picture in PICTURES:
            take(browser, picture)
            sys.stdout.write(f"{picture.name}\n")
        browser.close()


def environment(folder: str) -> Mapping[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("LLM_", "BILLING_"))}
    return {
        **ours,
        "LLM_ENV_FILE": "",
        "VAR_DIR": folder,
        "DATABASE_URL": f"sqlite:///{folder}/db.sqlite3",
        "LLM_PROVIDER": "echo",
        "BILLING_SELLER_NAME": "Example Gateway Ltd",
        "BILLING_SELLER_ADDRESS": "1 Example Street | London",
        "BILLING_SELLER_TAX_ID": "none",
        "WEB_PORT": str(PORT),
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        **{name: secrets.token_urlsafe(40) for name in ("SECRET_KEY", "LLM_KEY_PEPPER", "LLM_SECRETS_KEY")},
    }


@contextmanager
def server(variables: Mapping[str, str]) -> Iterator[None]:
    def manage(*words: str) -> list[str]:
        return [sys.executable, str(ROOT / "manage.py"), *words]

    user = ("createsuperuser", "--noinput", "--username", USER, "--email", "demo@gateway.example")
    for words in (("bootstrap",), ("demo_data",), user):
        subprocess.run(manage(*words), env=variables, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    process = subprocess.Popen(manage("serve"), env=variables, cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        wait_for_it()
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for_it() -> None:
    for _ in range(START_SECONDS * 2):
        try:
            urlopen(f"{BASE}/healthz")  # noqa: S310
            return
        except URLError:
            time.sleep(0.5)
    raise SystemExit("The server did not start.")


def take(browser: Browser, picture: Picture) -> None:
    context = browser.new_context(
        base_url=BASE, viewport={"width": picture.width, "height": 900}, color_scheme=picture.scheme
    )
    page = context.new_page()
    sign_in(page)
    page.goto(picture.path)
    if picture.follows:
        page.locator(picture.follows).first.click()
    page.wait_for_load_state("networkidle")
    height = min(picture.height, page.evaluate("document.documentElement.scrollHeight"))
    clip: Any = {"x": 0, "y": 0, "width": picture.width, "height": height}
    page.screenshot(path=TARGET / f"{picture.name}.png", full_page=True, clip=clip)
    context.close()


def sign_in(page: Page) -> None:
    page.goto("/admin/login/")
    fill_sign_in(page, USER, PASSWORD)


if __name__ == "__main__":
    main()
