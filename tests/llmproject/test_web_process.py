"""What a web process holds in memory beside what calls need; docs/benchmarks.md says how much that may be."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.llmproject.commands import ROOT, TIMEOUT_S, environment_of, python_command

pytestmark = pytest.mark.processes

STATUSES = {"/healthz": 200, "/admin/login/": 200, "/api/v1/invoices/": 401, "/docs/": 200}

VISIT = """
import asyncio, json, sys
from importlib import import_module

from asgiref.testing import ApplicationCommunicator
from llmproject.asgi import application

HEAVY = ("PIL", "fontTools", "fpdf", "uharfbuzz", "xlsxwriter")

async def status_of(path):
    scope = {
        "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "server": ("localhost", 80),
        "path": path, "raw_path": path.encode(), "query_string": b"", "headers": [(b"host", b"localhost")],
    }
    exchange = ApplicationCommunicator(application, scope)
    await exchange.send_input({"type": "http.request", "body": b""})
    await exchange.wait(timeout=60)
    return (await exchange.receive_output())["status"]

async def visit(paths):
    return {path: await status_of(path) for path in paths}

statuses = asyncio.run(visit(sys.argv[1:]))
after_visits = [name for name in HEAVY if name in sys.modules]
import_module("billing.documents.pdf")
print(json.dumps([statuses, after_visits, [name for name in HEAVY if name in sys.modules]]))
"""


def test_neither_the_start_nor_a_page_loads_what_only_documents_and_exports_need(tmp_path: Path) -> None:
    ended = subprocess.run(
        python_command("-W", "error", "-c", VISIT, *STATUSES),
        cwd=ROOT,
        env=environment_of(tmp_path, DJANGO_SETTINGS_MODULE="llmproject.settings"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    # What is loaded for a PDF shows that the names are right. The log, too, is written to stdout.
    assert json.loads(ended.stdout.splitlines()[-1]) == [STATUSES, [], ["PIL", "fontTools", "fpdf", "uharfbuzz"]]
