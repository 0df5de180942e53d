"""`.env` is written once, complete, with secrets of its own, for its owner alone."""

from __future__ import annotations

import re
from pathlib import Path

from llmproject.envfile import write_env_file

EXAMPLE = "# Settings\nSECRET_KEY=change-me\n# WEB_PORT=8000\nLLM_KEY_PEPPER=change-me-too\n"


def test_both_secrets_are_filled_in(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_text(EXAMPLE)
    assert write_env_file(tmp_path) is True
    text = (tmp_path / ".env").read_text()
    match = re.fullmatch(
        r"# Settings\nSECRET_KEY=([\w-]{64})\n# WEB_PORT=8000\nLLM_KEY_PEPPER=([\w-]{64})\n", text, re.ASCII
    )
    assert match is not None
    assert match[1] != match[2]
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == [".env", ".env.example"]


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_text(EXAMPLE)
    (tmp_path / ".env").write_text("SECRET_KEY=mine\n")
    assert write_env_file(tmp_path) is False
    assert (tmp_path / ".env").read_text() == "SECRET_KEY=mine\n"
