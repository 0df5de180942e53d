"""Collected files are compressed once, and again only when they have changed."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from llmproject.static import StaticStorage

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
