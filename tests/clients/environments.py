"""An environment for each client under `.clients/`, which git ignores; nothing reaches the project's own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tests.clients.catalog import NODE, Client

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".clients"
SCRIPTS = Path(__file__).resolve().parent / "scripts"
_UV = Path(sys.executable).parent / "uv"
_DONE = ".installed"


def set_up(client: Client, *, upgrade: bool) -> None:
    """Installs the client unless it is there. upgrade: its newest versions, in a new folder.

    Raises subprocess.CalledProcessError when its registry refuses.
    """
    folder = FOLDER / client.name
    if (folder / _DONE).exists() and not upgrade:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (_install_from_npm if client.is_npm else _install_from_pypi)(client, folder)
    (folder / _DONE).touch()


def _install_from_pypi(client: Client, folder: Path) -> None:
    environment = folder / "venv"
    subprocess.run([_UV, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    python = str(environment / "bin" / "python")
    subprocess.run([str(_UV), "pip", "install", "--quiet", "--python", python, *client.packages], check=True)


def _install_from_npm(client: Client, folder: Path) -> None:
    (folder / "package.json").write_text('{"private": true, "type": "module"}\n')
    subprocess.run(["npm", "install", "--silent", "--no-fund", "--no-audit", *client.packages], cwd=folder, check=True)


def versions_of(client: Client) -> dict[str, str]:
    """The versions of what the client was asked for, by name."""
    names = [package.partition("[")[0] for package in client.packages if package != "zod"]
    if client.is_npm:
        modules = FOLDER / client.name / "node_modules"
        return {name: json.loads((modules / name / "package.json").read_text())["version"] for name in names}
    listed = subprocess.run(
        [_UV, "pip", "list", "--format", "json", "--python", FOLDER / client.name / "venv" / "bin" / "python"],
        check=True,
        capture_output=True,
    )
    found = {package["name"]: package["version"] for package in json.loads(listed.stdout)}
    return {name: found[name] for name in names}


def command_for(client: Client) -> list[str | Path]:
    """What runs the client's script."""
    folder = FOLDER / client.name
    if client.script.endswith(".mjs"):
        # Node looks for packages from the folder of the script upwards.
        for name in (client.script, "checking.mjs"):
            shutil.copy(SCRIPTS / name, folder / name)
        return [node_folder() / "node", folder / client.script]
    python = Path(sys.executable) if client.is_npm else folder / "venv" / "bin" / "python"
    return [python, SCRIPTS / client.script]


def node_folder() -> Path:
    return FOLDER / NODE.name / "node_modules" / ".bin"


def programs_of(client: Client) -> Path:
    """The folder of the client's own commands."""
    folder = FOLDER / client.name
    return folder / "node_modules" / ".bin" if client.is_npm else folder / "venv" / "bin"
