"""The gateway's own server, but its main process has imported beforehand what every worker imports.

A worker is forked, so it starts in a tenth of the time: kills can follow each other faster than a usual start takes.
All that a worker does is as in production.
"""

from __future__ import annotations

import gc
import importlib
import os

import django

from llmproject import server

# Not the application's own module: what it does on import belongs into the worker.
_IMPORTED_BEFORE = ("llm.api.handler", "llm.runtime", "llm.calls", "llm.providers.openai", "django.core.handlers.asgi")


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "llmproject.settings")
    django.setup()
    for name in _IMPORTED_BEFORE:
        importlib.import_module(name)
    gc.freeze()
    server.main()


if __name__ == "__main__":
    main()
