"""`.env` is written once, complete, with secrets of its own, for its owner alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llmproject.envfile import add_missing_secrets, write_env_file

EXAMPLE = "# Settings\nSECRET_KEY=change-me\n# WEB_PORT=8000\nLLM_KEY_PEPPER=change-me-too\nLLM_SECRETS_KEY=change-me\n"


def test_all_secrets_are_filled_in(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_text(EXAMPLE)
    assert write_env_file(tmp_path) is True
    text = (tmp_path / ".env").read_text()
    match = re.fullmatch(
        r"# Settings\nSECRET_KEY=([\w-]{64})\n# WEB_PORT=8000\n"
        r"LLM_KEY_PEPPER=([\w-]{64})\nLLM_SECRETS_KEY=([\w-]{64})\n",
        text,
        re.ASCII,
    )
    assert match is not None
    assert len(set(match.groups())) == 3
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", ".env.example"]


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_text(EXAMPLE)
    (tmp_path / ".env").write_text("SECRET_KEY=mine\n")
    assert write_env_file(tmp_path) is False
    assert (tmp_path / ".env").read_text() == "SECRET_KEY=mine\n"


def test_an_older_file_gets_the_secret_that_came_since_and_keeps_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLM_SECRETS_KEY", raising=False)
    target = tmp_path / ".env"
    target.write_text("SECRET_KEY=mine\n# LLM_SECRETS_KEY=\nLLM_KEY_PEPPER=too")
    target.chmod(0o600)

    assert add_missing_secrets(tmp_path) == ["LLM_SECRETS_KEY"]

    text = target.read_text()
    assert re.fullmatch(
        r"SECRET_KEY=mine\n# LLM_SECRETS_KEY=\nLLM_KEY_PEPPER=too\nLLM_SECRETS_KEY=[\w-]{64}\n", text, re.ASCII
    )
    assert target.stat().st_mode & 0o777 == 0o600
    assert add_missing_secrets(tmp_path) == []
    assert target.read_text() == text


@pytest.mark.parametrize("line", ["LLM_SECRETS_KEY=", "export LLM_SECRETS_KEY=a", "SECRET_KEY=\n"])
def test_no_secret_is_added_where_there_is_one_or_the_environment_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.delenv("LLM_SECRETS_KEY", raising=False)
    if line.startswith("SECRET_KEY"):
        monkeypatch.setenv("LLM_SECRETS_KEY", "of the environment")
    (tmp_path / ".env").write_text(line)

    assert add_missing_secrets(tmp_path) == []
    assert (tmp_path / ".env").read_text() == line
