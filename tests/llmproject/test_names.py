"""A misspelled setting is never silent, and what others set in the environment never stops a start."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import environ
import pytest
from django.conf import settings

from llmproject.env import EnvReader
from llmproject.names import distance
from tests.gateway_process import free_port
from tests.llmproject.commands import ROOT, manage

KNOWN = ("LLM_PROVIDER", "LLM_MAX_RETRIES", "BILLING_SELLER_NAME", "DATABASE_URL", "WEB_PORT", "DEBUG")
UNKNOWN_PROVIDER = (
    "LLM_DISCONNECT_POLICY names the provider “opnai”, which doesn't exist; did you mean openai? "
    "Known providers: anthropic, echo, openai and openai_compatible."
)
DECLARE = "A name of your own must be listed in LLM_EXTRA_SETTINGS."


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    variables: dict[str, str] = {}
    monkeypatch.setattr(environ.Env, "ENVIRON", variables)
    return variables


def read_all(tmp_path: Path, *lines: str, extra: tuple[str, ...] = ()) -> EnvReader:
    """Everything that a start reads, from a file of these lines."""
    (tmp_path / ".env").write_text("\n".join(lines))
    reader = EnvReader()
    reader.load_file(tmp_path / ".env")
    for name in KNOWN:
        reader.text(name)
    reader.declare(*extra)
    reader.check_names()
    return reader


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("LLM_PROVIDR=openai", "LLM_PROVIDER"),
        ("LLM_MAX_RETRYS=4", "LLM_MAX_RETRIES"),
        ("BILLING_SELER_NAME=ACME", "BILLING_SELLER_NAME"),
        ("export BILING_SELLER_NAME=ACME", "BILLING_SELLER_NAME"),
        ("DATABSE_URL=x", "DATABASE_URL"),
        ("llm_provider=openai", "LLM_PROVIDER"),
        ("LLM_SOMETHING_ELSE_ALTOGETHER=1", "LLM_PROVIDER"),
        ("WEB_PROT=1", "WEB_PORT"),
    ],
)
def test_an_unknown_name_of_the_file_is_a_problem(
    variables: dict[str, str], tmp_path: Path, line: str, meant: str
) -> None:
    name = line.removeprefix("export ").partition("=")[0]
    reader = read_all(tmp_path, line)
    [problem] = reader.problems
    assert problem.startswith(f"Unknown setting {name} in .env; did you mean ")
    assert problem.endswith(DECLARE)
    if name != "LLM_SOMETHING_ELSE_ALTOGETHER":
        assert problem == f"Unknown setting {name} in .env; did you mean {meant}? {DECLARE}"
    assert reader.warnings == []


@pytest.mark.parametrize(
    "line", ["MY_PROVIDER_API_KEY=a", "# LLM_PROVIDR=openai", "LLM_PROVIDER=", "PATH=/bin", "TERM=x"]
)
def test_other_lines_of_the_file_are_none(variables: dict[str, str], tmp_path: Path, line: str) -> None:
    reader = read_all(tmp_path, line)
    assert (reader.problems, reader.warnings) == ([], [])


def test_a_declared_name_is_known_everywhere(variables: dict[str, str], tmp_path: Path) -> None:
    variables["LLM_PARROT_URL"] = "http://parrot"
    reader = read_all(tmp_path, "LLM_PROVIDES=1", extra=("LLM_PROVIDES", "LLM_PARROT_URL"))
    assert (reader.problems, reader.warnings) == ([], [])


def test_what_kubernetes_and_other_tools_set_is_a_warning(variables: dict[str, str], tmp_path: Path) -> None:
    foreign = {"LLM_PORT": "tcp://10.0.0.1:80", "LLM_SERVICE_HOST": "10.0.0.1", "LLM_PORT_8000_TCP_ADDR": "10.0.0.1"}
    variables.update(foreign, HOME="/home", DEBIAN="1", DEBUGS="1", SHELL="sh")
    reader = read_all(tmp_path)
    assert reader.problems == []
    assert reader.warnings == ["Unused environment variables: LLM_PORT, LLM_PORT_8000_TCP_ADDR, LLM_SERVICE_HOST."]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("LLM_PROVIDR", "LLM_PROVIDER"), ("BILLING_SELER_NAME", "BILLING_SELLER_NAME"), ("DATABSE_URL", "DATABASE_URL")],
)
def test_a_name_of_the_environment_within_two_letters_is_a_problem(
    variables: dict[str, str], tmp_path: Path, name: str, meant: str
) -> None:
    variables[name] = "x"
    reader = read_all(tmp_path)
    assert reader.problems == [f"Unknown setting {name} in the environment; did you mean {meant}? {DECLARE}"]
    assert reader.warnings == []


@pytest.mark.parametrize(
    ("one", "other", "letters"),
    [
        ("", "", 0),
        ("abc", "abc", 0),
        ("abc", "ab", 1),
        ("ab", "abc", 1),
        ("abc", "axc", 1),
        ("abc", "acb", 2),
        ("", "abc", 3),
    ],
)
def test_the_distance_counts_letters(one: str, other: str, letters: int) -> None:
    assert distance(one, other) == letters


def test_every_setting_of_the_example_is_read_whatever_the_others_say() -> None:
    """A setting that is read only where another has some value would be taken for unknown where it has not."""
    example = (ROOT / ".env.example").read_text()
    names = set(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", example, re.MULTILINE))
    assert len(names) > 50
    assert names <= settings.LLM_KNOWN_SETTINGS


@pytest.mark.processes
@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"LLM_PROVIDR": "openai"},
            f"Unknown setting LLM_PROVIDR in the environment; did you mean LLM_PROVIDER? {DECLARE}",
        ),
        (
            {"LLM_DISCONNECT_POLICY": "drain,opnai=cancel"},
            UNKNOWN_PROVIDER,
        ),
    ],
)
def test_a_start_is_refused_with_one_sentence(tmp_path: Path, environment: dict[str, str], sentence: str) -> None:
    ended = manage(tmp_path, "serve", WEB_PORT=str(free_port()), **environment)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"{sentence}\n")


@pytest.mark.processes
def test_a_file_with_a_misspelled_name_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "with-a-typo.env"
    file.write_text("LLM_PROVIDR=openai\nLLM_EXTRA_SETTINGS=LLM_MINE\nLLM_MINE=1\n")
    ended = manage(tmp_path, "check", LLM_ENV_FILE=str(file))
    assert ended.returncode == 1
    assert f"Unknown setting LLM_PROVIDR in {file.name}; did you mean LLM_PROVIDER?" in ended.stderr
    assert "LLM_MINE" not in ended.stderr


@pytest.mark.processes
def test_kubernetes_names_are_told_and_the_start_goes_on(tmp_path: Path) -> None:
    ended = manage(tmp_path, "check", LLM_PORT="tcp://10.0.0.1:8000", LLM_SERVICE_HOST="10.0.0.1")
    assert ended.returncode == 0
    assert "Unused environment variables: LLM_PORT, LLM_SERVICE_HOST." in ended.stderr


@pytest.mark.processes
def test_the_example_itself_stops_nothing(tmp_path: Path) -> None:
    example = tmp_path / "example.env"
    shutil.copy(ROOT / ".env.example", example)
    text = re.sub(r"^# ([A-Z][A-Z_]+=)", r"\1", example.read_text(), flags=re.MULTILINE)
    example.write_text(text)
    ended = manage(tmp_path, "check", LLM_ENV_FILE=str(example))
    assert "Unknown setting" not in ended.stderr
