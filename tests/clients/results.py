"""The results of all clients: kept in results.json, shown as the table of docs/clients.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.clients.catalog import CLIENTS, Client
from tests.clients.environments import ROOT
from tests.clients.stage import MODELS
from tests.clients.trying import REFUSED, Check

_FILE = Path(__file__).resolve().parent / "results.json"
PAGE = ROOT / "docs" / "clients.md"
_TABLE = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)
PLACES = {"openai": "behind OpenAI", "claude": "behind Claude", "compatible": "behind a compatible server"}
_HEAD = ("client", "version", "tried on", *PLACES.values())


def record(client: Client, versions: Mapping[str, str], day: str, outcomes: Mapping[str, Sequence[Check]]) -> None:
    """What a client did, by what stood behind the gateway; other results stay as they are."""
    results = read_results()
    places = {behind: {check.name: check.error for check in checks} for behind, checks in outcomes.items()}
    places = results.get(client.name, {}).get("behind", {}) | places
    results[client.name] = {"versions": dict(versions), "day": day, "behind": places}
    ordered = {known.name: results[known.name] for known in CLIENTS if known.name in results}
    _FILE.write_text(json.dumps(ordered, indent=2, ensure_ascii=False) + "\n")
    _show(ordered)


def _show(results: Mapping[str, Any]) -> None:
    """The table, and above each client's own lines with which version and when they were tried."""
    page = _TABLE.sub(lambda _: render(results), PAGE.read_text())
    for name, result in results.items():
        versions = ", ".join(_version(*each) for each in result["versions"].items())
        mark = re.compile(rf"(?<=<!-- tried: {re.escape(name)} -->).*")
        page = mark.sub(f"*Tried with {versions} on {result['day']}.*", page)
    PAGE.write_text(page)


def read_results() -> dict[str, Any]:
    """By client: versions, day, and for each place the error of each check, null where it worked."""
    found: dict[str, Any] = json.loads(_FILE.read_text()) if _FILE.exists() else {}
    return found


def render(results: Mapping[str, Any]) -> str:
    """The table, and below it a list of what didn't work, each with its reason."""
    rows = [_HEAD, tuple("---" for _ in _HEAD)]
    notes: list[str] = []
    for client in (client for client in CLIENTS if client.name in results):
        result = results[client.name]
        versions = ", ".join(_version(*each) for each in result["versions"].items())
        cells = [_cell(result["behind"].get(behind, {})) for behind in MODELS]
        rows.append((client.title, versions, result["day"], *cells))
        notes += _notes(client, result["behind"])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"\n{table}\n\n" + "".join(f"- {note}\n" for note in notes) + ("\n" if notes else "")


def _version(name: str, version: str) -> str:
    return f"{name}\N{NO-BREAK SPACE}{version}"


def _cell(checks: Mapping[str, str | None]) -> str:
    """The checks that worked; of the others only the names, since the list below the table has the reasons."""
    if not checks:
        return "not tried"
    lists: dict[str, list[str]] = {"": [], "; refused: ": [], "; **fails: **": []}
    for name, error in checks.items():
        kind = "" if error is None else "; refused: " if error.startswith(REFUSED) else "; **fails: **"
        if (name, error) != ("books", None):
            lists[kind].append(name)
    return "".join(kind + ", ".join(names) for kind, names in lists.items() if names)


def _notes(client: Client, places: Mapping[str, Mapping[str, str | None]]) -> Iterator[str]:
    for behind in MODELS:
        for name, error in places.get(behind, {}).items():
            if error is not None:
                yield f"{client.title}, {PLACES[behind]}, {name}: {_one_line(error)}"


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
