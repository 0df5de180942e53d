"""`python -m llmproject.envfile`: writes `.env` with random secrets; an existing one gets those added since.

Must run before anything is configured, so it uses only the standard library.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRETS = ("SECRET_KEY", "LLM_KEY_PEPPER", "LLM_SECRETS_KEY")
# Secrets that later versions introduced. The others are never added to an existing file: a new pepper invalidates all
# keys.
ADDED_SECRETS = ("LLM_SECRETS_KEY",)
SECRET_BYTES = 48


def write_env_file(folder: Path = BASE_DIR) -> bool:
    """True if the file was written. It is complete or absent, never half written, and readable only by its owner."""
    target = folder / ".env"
    if target.exists():
        return False
    text = (folder / ".env.example").read_text(encoding="utf-8")
    for name in SECRETS:
        text = re.sub(rf"(?m)^{name}=.*$", f"{name}={_new_secret()}", text)
    draft = folder / f".env.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(target)
    return True


def add_missing_secrets(folder: Path = BASE_DIR) -> list[str]:
    """The names of secrets missing from an older `.env`; those set in the environment aren't added."""
    target = folder / ".env"
    text = target.read_text(encoding="utf-8")
    missing = [
        name
        for name in ADDED_SECRETS
        if not re.search(rf"(?m)^(export )?{name}=", text) and not os.environ.get(name, "").strip()
    ]
    if missing:
        with target.open("a", encoding="utf-8") as file:
            file.write(
                "".join(["" if text.endswith("\n") else "\n", *(f"{name}={_new_secret()}\n" for name in missing)])
            )
    return missing


def _new_secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES)


def main() -> None:
    if write_env_file():
        said = "Wrote .env with new secrets. Back it up: without LLM_KEY_PEPPER no API key is recognised."
    elif added := add_missing_secrets():
        said = f"Added {', '.join(added)} to .env. Back it up: without it stored webhook secrets can't be read."
    else:
        return
    sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main()
