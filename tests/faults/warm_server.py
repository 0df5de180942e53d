"""The gateway's own server, but its main process has imported beforehand what every worker imports.

A worker is forked, so it starts in a tenth of the time: kills can follow each other faster than a usual start takes.
All that a worker does is as in production, but that it looks for orders to kill itself where a campaign gives such.
"""

from __future__ import annotations

import gc
import importlib
import os
from pathlib import Path

import django

from llmproject import server
from tests.faults import crash_points

# Not the application's own module: what it does on import belongs into the worker.
_IMPORTED_BEFORE = (
    "llm.api.handler",
    "llm.calls.runtime",
    "llm.calls.task",
    "llm.providers.openai",
    "django.core.handlers.asgi",
)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmproject.settings")
    django.setup()
    for name in _IMPORTED_BEFORE:
        importlib.import_module(name)
    if folder := os.environ.get(crash_points.FOLDER_VARIABLE):
        crash_points.install(crash_points.Orders(Path(folder)))
    gc.freeze()
    server.main()


if __name__ == "__main__":
    main()
