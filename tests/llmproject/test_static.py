"""Collected files are compressed once, and again only when they have changed."""

from __future__ import annotations

import gzip
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llm.api.asgi import Scope
from llmproject.front import Front
from llmproject.static import StaticFiles, StaticStorage

TEXT = "body { color: black }\n" * 50


@pytest.fixture
def storage(tmp_path: Path) -> StaticStorage:
    (tmp_path / "site.css").write_text(TEXT)
    return StaticStorage(location=tmp_path, base_url="/static/")


def compress(storage: StaticStorage) -> list[tuple[str, str, bool]]:
    return list(storage.post_process({"site.css": None}))


def test_a_file_is_compressed_once(storage: StaticStorage, tmp_path: Path) -> None:
    assert compress(storage) == [("site.css", "site.css.gz", True)]
    assert gzip.decompress((tmp_path / "site.css.gz").read_bytes()).decode() == TEXT
    assert compress(storage) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site.css", "site.css.gz"]


def test_a_file_that_has_changed_is_compressed_again(storage: StaticStorage, tmp_path: Path) -> None:
    compress(storage)
    (tmp_path / "site.css").write_text(TEXT.upper())
    os.utime(tmp_path / "site.css", (2_000_000_000, 2_000_000_000))
    assert compress(storage) == [("site.css", "site.css.gz", True)]
    assert gzip.decompress((tmp_path / "site.css.gz").read_bytes()).decode() == TEXT.upper()


def test_a_copy_that_was_cut_short_is_written_again(storage: StaticStorage, tmp_path: Path) -> None:
    (tmp_path / "site.css.gz").write_bytes(b"half")
    os.utime(tmp_path / "site.css.gz", (2_000_000_000, 2_000_000_000))
    assert compress(storage) == [("site.css", "site.css.gz", True)]


# --- Served without Django's handler, its gate and the database -------------------------------------------------------


async def fetch(path: str, *, method: str = "GET", **headers: str) -> tuple[int, dict[bytes, bytes], bytes]:
    sent: list[Mapping[str, Any]] = []
    given = {"host": "localhost", **headers}
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in given.items()],
    }

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    await Front(StaticFiles())(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@pytest.mark.usefixtures("own_runtime")
async def test_a_file_comes_with_the_headers_of_security() -> None:
    status, headers, body = await fetch("/static/admin/css/base.css")
    assert (status, headers[b"x-content-type-options"], headers[b"content-type"]) == (
        200,
        b"nosniff",
        b'text/css; charset="utf-8"',
    )
    assert b"body" in body
    again, *_ = await fetch("/static/admin/css/base.css", if_modified_since=headers[b"last-modified"].decode())
    assert again == 304


@pytest.mark.usefixtures("own_runtime")
@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/static/nope.css", "GET", 404),
        ("/static/", "GET", 404),
        ("/static/../manage.py", "GET", 404),
        ("/static/\0", "GET", 404),
        ("/static/\ufffd\udcff", "GET", 404),
        ("/static/admin/css/base.css", "POST", 405),
    ],
)
async def test_what_is_no_file_is_refused(path: str, method: str, status: int) -> None:
    assert (await fetch(path, method=method, cookie="sessionid=\xff"))[0] == status
