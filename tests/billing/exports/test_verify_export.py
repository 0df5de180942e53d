"""The script in an export names what differs, whoever changed it and however well."""

from __future__ import annotations

import ast
import csv
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from billing.exports.manifest import FORMAT
from tests.billing.exports.months import exported, issued, make_month, verify

# For the fixture's sake: the tests themselves need no database.
pytestmark = pytest.mark.django_db

Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def good(django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with the lines: claude in, out; gpt-4o in, cached, out. Made once: billing takes a while."""
    folder = tmp_path_factory.mktemp("exports") / "good"
    with django_db_blocker.unblock():
        issued(make_month())
        exported(folder, ("csv", "focus"))
        call_command("flush", interactive=False, verbosity=0)
    return folder


def found_after(change: Change, good: Path, folder: Path) -> list[str]:
    """What the script names after a change of a copy, without its last line, which says how many."""
    copy = folder / "copy"
    shutil.copytree(good, copy)
    change(copy)
    status, said = verify(copy)
    *sentences, last = said.splitlines()
    assert (status, last) == (1, f"{len(sentences)} difference{'' if len(sentences) == 1 else 's'}.")
    return sentences


def in_table(table: str, row: int, **values: str) -> Change:
    """Cells are changed, and the manifest made to fit."""

    def edit(rows: list[dict[str, str]]) -> None:
        assert rows[row].keys() >= values.keys()
        rows[row].update(values)

    return rewritten(table, edit)


def without_row(table: str, row: int) -> Change:
    return rewritten(table, lambda rows: rows.__delitem__(row))


def rewritten(table: str, edit: Callable[[list[dict[str, str]]], None]) -> Change:
    def change(folder: Path) -> None:
        path = folder / f"{table}.csv"
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows, names = list(reader), reader.fieldnames or ()
        edit(rows)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(rows)
        sign_again(folder, path)

    return change


def overwritten(name: str, content: bytes) -> Change:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return change


def in_manifest(edit: Callable[[dict[str, Any]], None]) -> Change:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        document = json.loads(path.read_bytes())
        edit(document)
        path.write_text(json.dumps(document))

    return change


def sign_again(folder: Path, path: Path) -> None:
    content = path.read_bytes()

    def edit(document: dict[str, Any]) -> None:
        [entry] = [entry for entry in document["files"] if entry["name"] == path.name]
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    in_manifest(edit)(folder)


INVOICE = f"INV-{timezone.now().year}-000001"
GPT, CLAUDE = f"{INVOICE}, openai gpt-4o of 2026-09", f"{INVOICE}, anthropic claude of 2026-09"
ZEROS = "0" * 64

TAMPERED_LINES: dict[str, tuple[Change, list[str]]] = {
    "quantity": (
        in_table("lines", 2, quantity="1000204"),
        [
            f"{INVOICE}, line 3: exact amount is 2.5005075, but should be 2.5005100.",
            f"{GPT}: prompt_tokens billed is 1000504, but should be 1000503.",
        ],
    ),
    "unit price": (
        in_table("lines", 2, unit_price_per_million="2.6"),
        [f"{INVOICE}, line 3: exact amount is 2.5005075, but should be 2.6005278."],
    ),
    "exact amount": (
        in_table("lines", 2, exact_amount="2.5005076", residual="0.0005076"),
        [
            f"{INVOICE}: the residual of its lines is 0.001126600003, but should be 0.001126500003.",
            f"{INVOICE}, line 3: exact amount is 2.5005076, but should be 2.5005075.",
        ],
    ),
    "residual": (
        in_table("lines", 2, residual="0"),
        [
            f"{INVOICE}: the residual of its lines is 0.000619000003, but should be 0.001126500003.",
            f"{INVOICE}, line 3: residual is 0, but should be 0.0005075.",
        ],
    ),
    "amount": (
        in_table("lines", 2, amount="2.51"),
        [
            f"{INVOICE}: the sum of its lines is 2.51, but should be 2.50.",
            f"{INVOICE}, line 3: amount is 2.51, but should be 2.50.",
            f"{INVOICE}, line 3: residual is 0.0005075, but should be -0.0094925.",
        ],
    ),
    "calls": (
        in_table("lines", 3, calls="3"),
        [f"{INVOICE}, line 4: number of calls is 3, but should be 2."],
    ),
    "no number": (
        in_table("lines", 3, amount="ten"),
        [
            f"{INVOICE}: amount is “ten”, which is not a number.",
            f"{INVOICE}, line 4: amount is “ten”, which is not a number.",
        ],
    ),
    "left out": (
        without_row("lines", 0),
        [
            "lines.csv: number of rows is 4, but should be 5.",
            f"{INVOICE}: the residual of its lines is 0.0011175, but should be 0.001126500003.",
            f"{INVOICE}: cost_usd is 2.501126500003, but should be 2.5011175.",
            f"{CLAUDE}: cost_usd is 0.000165, but should be 0.000174000003.",
            f"{CLAUDE}: prompt_tokens billed is 0, but should be 3.",
        ],
    ),
    "of an unknown invoice": (
        in_table("lines", 0, invoice_id="99"),
        [
            "Invoice 99: it has lines, but is not among the invoices.",
            f"{INVOICE}: the residual of its lines is 0.0011175, but should be 0.001126500003.",
            f"{INVOICE}: cost_usd is 2.501126500003, but should be 2.5011175.",
            f"{CLAUDE}: cost_usd is 0.000165, but should be 0.000174000003.",
            f"{CLAUDE}: prompt_tokens billed is 0, but should be 3.",
            "Invoice 99, anthropic claude of 2026-09: prompt_tokens billed is 3, but should be 0.",
        ],
    ),
}

TAMPERED_INVOICES: dict[str, tuple[Change, list[str]]] = {
    "subtotal": (
        in_table("invoices", 0, subtotal="2.51"),
        [
            f"{INVOICE}: the sum of its lines is 2.50, but should be 2.51.",
            f"{INVOICE}: total is 2.98, but should be 2.99.",
            "manifest.json: subtotal in USD is 2.50, but should be 2.51.",
        ],
    ),
    "tax": (
        in_table("invoices", 0, tax="0.47", total="2.97"),
        [
            f"{INVOICE}: tax is 0.47, but should be 0.48.",
            f"{INVOICE}: total, says manifest.json, is 2.98, but should be 2.97.",
            "manifest.json: tax in USD is 0.48, but should be 0.47.",
            "manifest.json: total in USD is 2.98, but should be 2.97.",
            f"focus-1.2.csv, {INVOICE}: the sum of BilledCost is 2.980000000000, but should be 2.97.",
        ],
    ),
    "tax rate": (in_table("invoices", 0, tax_percent="7"), [f"{INVOICE}: tax_percent is 7, but should be 19."]),
    "tax rate of a line": (
        in_table("lines", 2, tax_percent="7"),
        [
            f"{INVOICE}: tax_percent is 19, but should be 7.",
            f"{INVOICE}: tax is 0.48, but should be 0.18.",
        ],
    ),
    "state": (
        in_table("invoices", 0, state="draft"),
        [f"{INVOICE}: state, says manifest.json, is issued, but should be draft."],
    ),
    "digest": (
        in_table("invoices", 0, content_digest=""),
        [f"{INVOICE}: content_digest, says manifest.json, is CONTENT, but should be nothing."],
    ),
    "left out": (
        without_row("invoices", 0),
        [
            "invoices.csv: number of rows is 0, but should be 1.",
            "Invoice ID: it has lines, but is not among the invoices.",
            "Invoice ID: it is not in both manifest.json and the table of invoices.",
        ],
    ),
}

TAMPERED_USAGE: dict[str, tuple[Change, list[str]]] = {
    "input": (
        in_table("usage", 0, prompt_tokens="1000004"),
        [f"{GPT}: prompt_tokens billed is 1000503, but should be 1000504."],
    ),
    "cached": (
        in_table("usage", 2, cache_read_tokens="299"),
        [f"{GPT}: cache_read_tokens billed is 300, but should be 299."],
    ),
    "output": (
        in_table("usage", 1, completion_tokens="12"),
        [f"{CLAUDE}: completion_tokens billed is 11, but should be 12."],
    ),
    "model": (
        in_table("usage", 1, model="opus"),
        [
            f"{CLAUDE}: prompt_tokens billed is 3, but should be 0.",
            f"{CLAUDE}: completion_tokens billed is 11, but should be 0.",
            f"{INVOICE}, line 1: number of calls is 1, but should be 0.",
        ],
    ),
    "digest": (
        in_table("usage", 1, digest=ZEROS),
        [
            f"{INVOICE}, line 1: digest of the calls is CLAUDES, but should be {ZEROS}.",
            f"{INVOICE}, line 2: digest of the calls is CLAUDES, but should be {ZEROS}.",
        ],
    ),
    "half a token": (
        in_table("usage", 1, prompt_tokens="3.5"),
        ["usage.csv, row 2: prompt_tokens is “3.5”, which is not a whole number."],
    ),
}

TAMPERED_FILES: dict[str, tuple[Change, list[str]]] = {
    "missing": (
        lambda folder: (folder / "usage.csv").unlink(),
        ["usage.csv: the file is missing.", "usage.csv: number of rows is 0, but should be 3."],
    ),
    "added": (lambda folder: (folder / "more.txt").touch(), ["more.txt: the manifest doesn't list this file."]),
    "not UTF-8": (
        overwritten("lines.csv", b"\xff"),
        ["lines.csv: size in bytes is 1, but should be SIZE."],
    ),
    "focus": (
        in_table("focus-1.2", 0, BilledCost="1"),
        [f"focus-1.2.csv, {INVOICE}: the sum of BilledCost is 3.979990999997, but should be 2.98."],
    ),
    "totals": (
        in_manifest(lambda document: document["totals"]["USD"].update(total="9.99")),
        ["manifest.json: total in USD is 9.99, but should be 2.98."],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param(*case, id=f"{group}: {name}")
        for group, cases in (
            ("lines", TAMPERED_LINES),
            ("invoices", TAMPERED_INVOICES),
            ("usage", TAMPERED_USAGE),
            ("files", TAMPERED_FILES),
        )
        for name, case in cases.items()
    ],
)
def test_what_was_changed_is_named(good: Path, tmp_path: Path, change: Change, expected: list[str]) -> None:
    with (good / "invoices.csv").open(encoding="utf-8") as file:
        [invoice] = csv.DictReader(file)
    with (good / "lines.csv").open(encoding="utf-8") as file:
        claude = next(csv.DictReader(file))
    known = {
        "CONTENT": invoice["content_digest"],
        "CLAUDES": claude["digest"],
        "Invoice ID": f"Invoice {invoice['invoice_id']}",
        "SIZE": str((good / "lines.csv").stat().st_size),
    }
    for word, value in known.items():
        expected = [sentence.replace(word, value) for sentence in expected]
    assert found_after(change, good, tmp_path)[: len(expected)] == expected


@pytest.mark.processes
def test_a_file_that_was_changed_after_it_was_signed_is_named(good: Path, tmp_path: Path) -> None:
    def append(folder: Path) -> None:
        with (folder / "focus-1.2.csv").open("ab") as file:
            file.write(b"\r\n")

    before = (good / "focus-1.2.csv").read_bytes()
    due, found = (hashlib.sha256(content).hexdigest() for content in (before, before + b"\r\n"))
    assert found_after(append, good, tmp_path) == [
        f"focus-1.2.csv: size in bytes is {len(before) + 2}, but should be {len(before)}.",
        f"focus-1.2.csv: SHA-256 is {found}, but should be {due}.",
    ]


@pytest.mark.processes
def test_a_good_export_is_in_order(good: Path) -> None:
    assert verify(good) == (0, "No differences: invoices 1, lines 5, usage 3.\n")


def test_the_script_needs_no_newer_python_than_it_says(good: Path) -> None:
    tree = ast.parse((good / "verify_export.py").read_text(encoding="utf-8"), feature_version=(3, 9))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported <= {*sys.stdlib_module_names, "collections.abc", "xml.etree"}


@pytest.mark.slow
def test_what_is_no_export_cannot_be_checked(good: Path, tmp_path: Path) -> None:
    script = shutil.copy(good / "verify_export.py", tmp_path)
    assert verify(tmp_path) == (2, f"{tmp_path} contains no manifest.json: this is not an export.\n")
    for content, said in (
        (
            "[]",
            f"manifest.json has a format that this script doesn't know; it knows {FORMAT}/1, {FORMAT}/2.\n",
        ),
        ("nonsense", "manifest.json can't be read: Expecting value: line 1 column 1 (char 0).\n"),
        ('{"format": "llm-gateway-export/1"}', "manifest.json is damaged: KeyError('files').\n"),
    ):
        (tmp_path / "manifest.json").write_text(content)
        assert verify(tmp_path) == (2, said)
    assert Path(script).exists()


@pytest.mark.processes
def test_without_tables_only_the_files_are_checked(good: Path, tmp_path: Path) -> None:
    shutil.copytree(good, tmp_path / "copy")
    in_manifest(lambda document: document.update(formats=["focus"]))(tmp_path / "copy")
    said = "Only the files themselves were checked: for their figures, export as csv or jsonl too.\n"
    assert verify(tmp_path / "copy") == (2, said)
