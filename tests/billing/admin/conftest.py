"""Pages that ask for jobs: what is handed to Celery, and where workers would lock and write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _export_folder(tmp_path: Path, settings: Any) -> None:
    settings.BILLING_EXPORT_DIR = tmp_path / "exports"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Jobs that were handed to Celery."""
    found: list[Any] = []
    monkeypatch.setattr("billing.jobs.queue.app.send_task", lambda name, args: found.append((name, args)))
    return found
