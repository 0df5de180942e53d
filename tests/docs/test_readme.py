"""What the documents name exists, and what exists is in them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from django.core.management import BaseCommand, get_commands, load_command_class
from prometheus_client import REGISTRY

import llm.metrics  # noqa: F401  # registers what the page must list
from tests.docs.pages import PAGES, ROOT, blocks, prose

README, OPERATIONS = ROOT / "README.md", ROOT / "docs" / "operations.md"
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())

SETTINGS = set(re.findall(r'read\.\w+\(\s*"([A-Z_]+)"', (ROOT / "llmproject" / "settings.py").read_text())) | {
    "DATABASE_URL",
    "DATABASE_PAGES_URL",
    "LLM_PROVIDERS",
}
# Of an instance of LLM_PROVIDERS; the names are the pages' own.
_ENDS = "|".join(re.findall(r'"([A-Z_]+)"\)', (ROOT / "llmproject" / "providers.py").read_text()))
_OF_INSTANCE = re.compile(rf"LLM_PROVIDER_[A-Z][A-Z0-9]*_(?:{_ENDS})")
# `serve` sets it, nobody else.
INTERNAL = {"LLM_PROCESS"}
# Names that the documents use and that are no settings of ours.
FOREIGN = {
    *("MY_PROVIDER_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"),
    *(
        "ANTHROPIC_API_BASE",
        "ANTHROPIC_AUTH_TOKEN",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL",
        "ANTHROPIC_MODEL",
        "OPENAI_API_BASE",
    ),
}
_NAME = re.compile(
    r"(?<![A-Za-z0-9_$-])\$?(?:LLM|OPENAI|ANTHROPIC|WEB|CELERY|MY|CSRF|SECRET|ALLOWED)_[A-Z0-9_]*[A-Z0-9]"
)

_COMMAND = re.compile(r"manage\.py ([a-z_]+)([^\n`)]*)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|tmp|home|Users)/")


@EACH_PAGE
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    named = {name.lstrip("$") for name in _NAME.findall(page.read_text())}
    assert {name for name in named - SETTINGS - FOREIGN if not _OF_INSTANCE.fullmatch(name)} == set()


@pytest.mark.parametrize("page", [ROOT / ".env.example", OPERATIONS], ids=lambda page: page.name)
def test_every_setting_is_explained(page: Path) -> None:
    text = page.read_text()
    assert {name for name in SETTINGS - INTERNAL if not re.search(rf"\b{name}\b", text)} == set()


@EACH_PAGE
def test_every_command_that_a_page_shows_exists(page: Path) -> None:
    for name, arguments in _COMMAND.findall(page.read_text()):
        assert name in get_commands(), name
        known = _options(name)
        used = {word.partition("=")[0] for word in shlex.split(arguments, comments=True) if word.startswith("--")}
        assert used - known == set(), name


def test_the_table_of_commands_is_complete() -> None:
    """Each of our own, with each option of its own."""
    # `migrate` is Django's, run by another user of the database.
    own = [name for name, app in get_commands().items() if app == "llm" and name != "migrate"]
    rows = {
        match[1]: match[0] for match in re.finditer(r"^\| `manage\.py (\w+).*$", OPERATIONS.read_text(), re.MULTILINE)
    }
    assert set(own) <= rows.keys()
    usual = _long_options(BaseCommand().create_parser("manage.py", ""))
    missing = {name: _options(name) - usual - set(re.findall(r"--[\w-]+", rows[name])) for name in own}
    assert missing == {name: set() for name in own}


def test_the_table_of_metrics_is_complete() -> None:
    ours = [metric for metric in REGISTRY.collect() if metric.name.startswith("llm_")]
    names = {f"{metric.name}_total" if metric.type == "counter" else metric.name for metric in ours}
    # The last one is counted when somebody asks.
    assert set(re.findall(r"^\| `(llm_\w+)`", OPERATIONS.read_text(), re.MULTILINE)) == names | {"llm_open_rows"}


@EACH_PAGE
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in _anchors(file), target


@EACH_PAGE
def test_no_page_knows_somebodys_machine(page: Path) -> None:
    assert _MACHINE_PATH.search(page.read_text()) is None


@EACH_PAGE
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = set(re.findall(r"`((?:llm|llmproject|tests|benchmarks|docs|billing|templates)/[\w./-]*)`", prose(page)))
    assert {name for name in named if not (ROOT / name).exists()} <= {"llm/providers/my_provider.py"}


def test_the_picture_is_sound_and_has_a_dark_side() -> None:
    picture = ROOT / "docs" / "architecture.svg"
    ET.parse(picture)  # noqa: S314  # our own file
    assert "prefers-color-scheme: dark" in picture.read_text()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("position", "expected"),
    [
        (0, ["openai", "gpt-4o", "sk-...", "", ""]),
        (1, ["anthropic", "claude-3-5-sonnet-20241022", "", "sk-ant-...", ""]),
        (2, ["openai_compatible", "llama3.2", "ollama", "", "http://localhost:11434/v1"]),
        (3, ["main", "gpt-4o", "", "", ""]),
    ],
    ids=["openai", "anthropic", "openai_compatible", "several"],
)
def test_the_providers_lines_work_as_written(position: int, expected: list[str], tmp_path: Path) -> None:
    """In an .env of their own: the checks that every start makes are content, and the values are what they say."""
    shown = [block for block in blocks(README, "sh") if block.startswith("LLM_PROVIDER")]
    (tmp_path / ".env").write_text(shown[position])
    script = (
        "import django, json; django.setup(); from django.conf import settings; "
        "from django.core.management import call_command; call_command('check'); "
        "names = 'LLM_PROVIDER LLM_DEFAULT_MODEL OPENAI_API_KEY ANTHROPIC_API_KEY LLM_BASE_URL'; "
        "print(json.dumps([getattr(settings, name) for name in names.split()]))"
    )
    environment = {**os.environ, "LLM_ENV_FILE": str(tmp_path / ".env")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def _options(command: str) -> set[str]:
    return _long_options(load_command_class(get_commands()[command], command).create_parser("manage.py", command))


def _long_options(parser: ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings if option.startswith("--")}


def _anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
