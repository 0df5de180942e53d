"""Writes the fixture: the database, the files beside it, and what a test expects of both."""

from __future__ import annotations

import hashlib
import json
import lzma
import re
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.db import connection
from django.db.models import Count, Sum

from billing.documents import render_html, render_pdf
from billing.models import ExportJob, Invoice, MonthJob
from llm.digests import DIGEST_FIELDS, digest_hex
from llm.models import LimitWindow, Outbox, Usage, UsageAdjustment

# Statements of pg_dump that depend on the server or on who restores, and psql's own commands.
_LEFT_OUT = re.compile(r"^(SET |\\|--|SELECT pg_catalog\.set_config)")


def store_fixture(target: Path, secrets: Mapping[str, str], *, spool: Path, exports: Path) -> None:
    folder = target / connection.vendor
    folder.mkdir(parents=True, exist_ok=True)
    expected = {"secrets": dict(secrets), **_expected(spool)}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n")
    (folder / "files.tar.xz").write_bytes(_packed_files(spool, exports))
    dump = _sqlite_file() if connection.vendor == "sqlite" else _postgresql_dump()
    (folder / "database.xz").write_bytes(lzma.compress(dump, preset=9 | lzma.PRESET_EXTREME))


def _sqlite_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.sqlite3"
        connection.close()
        with sqlite3.connect(settings.DATABASES["default"]["NAME"]) as database:
            database.execute("VACUUM INTO ?", [str(copy)])
        return copy.read_bytes()


def _postgresql_dump() -> bytes:
    """As statements that any client can run, whose names say their schema."""
    config = settings.DATABASES["default"]
    address = f"postgres://{quote(config['USER'])}@{config['HOST']}:{config['PORT']}/{connection.settings_dict['NAME']}"
    options = ("--no-owner", "--no-privileges", "--no-comments", "--inserts", "--rows-per-insert=200")
    dump = subprocess.run(["pg_dump", *options, address], capture_output=True, text=True, check=True).stdout
    lines = [line for line in dump.splitlines() if line and not _LEFT_OUT.match(line)]
    return "\n".join((*lines, "")).encode()


def _packed_files(spool: Path, exports: Path) -> bytes:
    """spool/, exports/ and documents/, without what is only this process's own."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz", preset=9) as tar:
        for name, folder in (("spool", spool), ("exports", exports)):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and path.suffix not in (".reserve", ".lock"):
                    tar.addfile(*_entry(f"{name}/{path.relative_to(folder)}", path.read_bytes()))
        # One whole document, to see what differs where a digest does.
        issued = Invoice.objects.filter(state="issued", kind="regular").order_by("id")[0]
        tar.addfile(*_entry(f"documents/{issued.pk}.pdf", render_pdf(issued)))
    return packed.getvalue()


def _entry(name: str, content: bytes) -> tuple[tarfile.TarInfo, BytesIO]:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o600
    return entry, BytesIO(content)


def _expected(spool: Path) -> dict[str, Any]:
    in_spool = "".join(path.read_text() for path in spool.glob("*.spool"))
    invoices = list(Invoice.objects.order_by("id"))
    return {
        "windows": [_window(window) for window in LimitWindow.objects.select_related("limit").order_by("id")],
        "usage": {str(row.pk): _digest(row) for row in Usage.objects.exclude(status="open")},
        "adjustments": {str(row.pk): _digest(row) for row in UsageAdjustment.objects.all()},
        "sums": _sums(),
        "open": {str(row.pk): str(row.pk) in in_spool for row in Usage.objects.open().order_by("id")},
        "invoices": {str(invoice.pk): _invoice(invoice) for invoice in invoices},
        "documents": {str(each.pk): _documents(each) for each in invoices if each.is_frozen},
        "exports": {job.folder: _files(job) for job in ExportJob.objects.filter(state="done").order_by("id")},
        "jobs": {
            kind.__name__: list(kind.objects.filter(state__in=("waiting", "running")).values_list("id", flat=True))
            for kind in (ExportJob, MonthJob)
        },
        "messages": {str(row.pk): row.sent_at is not None for row in Outbox.objects.order_by("id")},
    }


def _window(window: LimitWindow) -> dict[str, Any]:
    values = {name: getattr(window, name) for name in ("id", "limit_id", "used", "held", "is_announced")}
    return {**values, "per": window.limit.per, "starts_at": window.starts_at.isoformat()}


def _digest(row: Usage | UsageAdjustment) -> str:
    return digest_hex(getattr(row, name) for name in DIGEST_FIELDS)


def _sums() -> list[list[Any]]:
    """[status, calls, prompt tokens, completion tokens, cost] of the rows as they were closed."""
    found = Usage.objects.order_by().values_list("status")
    sums = found.annotate(Count("id"), Sum("prompt_tokens"), Sum("completion_tokens"), Sum("cost"))
    return sorted([*row[:-1], None if row[-1] is None else f"{row[-1]:f}"] for row in sums)


def _invoice(invoice: Invoice) -> dict[str, Any]:
    lines = [[line.description, line.quantity, f"{line.amount:f}"] for line in invoice.lines.order_by("position")]
    amounts = {name: f"{getattr(invoice, name):f}" for name in ("subtotal", "tax", "total", "cost_usd")}
    facts = {name: getattr(invoice, name) for name in ("kind", "state", "label", "content_digest")}
    return {**facts, **amounts, "account": invoice.account.name, "lines": lines}


def _documents(invoice: Invoice) -> dict[str, str]:
    return {"pdf": _sha256(render_pdf(invoice)), "html": _sha256(render_html(invoice).encode())}


def _files(job: ExportJob) -> dict[str, str]:
    folder = settings.BILLING_EXPORT_DIR / job.folder
    return {str(path.relative_to(folder)): _sha256(path.read_bytes()) for path in sorted(folder.rglob("*"))}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
