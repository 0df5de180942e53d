"""OpenAI's own tests of its Python SDK, from its source distribution, through the gateway.

`python -m tests.clients.sdk_tests [--openapi FILE]`: with OpenAI's OpenAPI document a mock of it (Prism, from npm)
stands behind the gateway, else our fake upstream. `sdk_tests_that_fail.json` lists the tests that can't pass, each with
its reason. It may only shrink: a test that fails without being on it ends the run with exit code 1, and so does one
that is on it and passes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.request import urlopen
from xml.etree import ElementTree as ET

from tests.clients.catalog import Client
from tests.clients.environments import FOLDER, set_up
from tests.clients.stage import Place, clean_environment, running_place
from tests.gateway_process import free_port

SDK = Client(
    "openai-tests",
    "OpenAI's SDK and what its tests need",
    ("openai[aiohttp]==3.57.0", "pytest==9.*", "pytest-asyncio", "pytest-xdist", "rich", "inline-snapshot", "trio"),
    "",
)
PRISM = Client("prism", "Prism", ("@stoplight/prism-cli",), "", is_npm=True)
FILES = (
    *("chat/test_completions.py", "test_completions.py", "test_embeddings.py", "test_models.py"),
    *("test_responses.py", "responses/test_input_items.py", "responses/test_input_tokens.py"),
)
"""Of the endpoints that the gateway has."""
MODELS = ("gpt-4o", "gpt-6-astra")
"""That the tests look up."""
_LIST = Path(__file__).resolve().parent / "sdk_tests_that_fail.json"
_FOLDER = FOLDER / SDK.name
_START_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.clients.sdk_tests", description=__doc__)
    parser.add_argument("--openapi", type=Path, help="OpenAI's OpenAPI document, for a mock behind the gateway")
    options = parser.parse_args(arguments)
    set_up(SDK, upgrade=False)
    source = _unpacked_source()
    with contextlib.ExitStack() as stack:
        mock = stack.enter_context(_running_mock(options.openapi)) if options.openapi else None
        place = stack.enter_context(running_place("openai", base_url=mock, models=MODELS))
        failed, passed = _run(source, place)
    return _report(failed, passed, expected_failures(is_mock=mock is not None))


def expected_failures(*, is_mock: bool) -> dict[str, str]:
    """Why each test can't pass, by its name. With the mock, what is only our fake upstream's fault is no reason."""
    groups = json.loads(_LIST.read_text())
    return {
        test: group["reason"]
        for group in groups
        if not (is_mock and group["because_of"] == "the fake upstream")
        for test in group["tests"]
    }


def _unpacked_source() -> Path:
    name, _, version = SDK.packages[0].partition("==")
    stem = f"{name.partition('[')[0]}-{version}"
    if not (_FOLDER / stem).is_dir():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "openai"]
        subprocess.run([*command, "--dest", _FOLDER, f"openai=={version}"], check=True)
        with tarfile.open(_FOLDER / f"{stem}.tar.gz") as archive:
            archive.extractall(_FOLDER, filter="data")
    conftest = _FOLDER / stem / "tests" / "conftest.py"
    ours = 'api_key = os.environ["GATEWAY_KEY"]'
    conftest.write_text(conftest.read_text().replace('api_key = "My API Key"', ours))
    return _FOLDER / stem


@contextlib.contextmanager
def _running_mock(document: Path) -> Iterator[str]:
    """The address of a server that answers as the document says."""
    set_up(PRISM, upgrade=False)
    port = free_port()
    program = FOLDER / PRISM.name / "node_modules" / ".bin" / "prism"
    process = subprocess.Popen([program, "mock", "--port", str(port), document], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), contextlib.closing(urlopen(f"http://127.0.0.1:{port}/", timeout=5)):
                break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _run(source: Path, place: Place) -> tuple[set[str], set[str]]:
    """The names of the tests that failed in any of their forms, and of those that passed in all."""
    report = _FOLDER / "report.xml"
    environment = clean_environment() | {"TEST_API_BASE_URL": f"{place.url}/v1", "GATEWAY_KEY": place.key}
    command = [
        str(_FOLDER / "venv" / "bin" / "python"),
        "-m",
        "pytest",
        "-q",
        "-n0",
        "--tb=no",
        "--junitxml",
        str(report),
    ]
    files = [f"tests/api_resources/{name}" for name in FILES]
    subprocess.run([*command, *files], cwd=source, env=environment, check=False)
    failed: set[str] = set()
    names: set[str] = set()
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  # pytest wrote it
        # The synchronous and the asynchronous form of a test are one here: the class and the parameters are left out.
        module = case.get("classname", "").removeprefix("tests.api_resources.").rpartition(".")[0]
        name = f"{module}.{case.get('name', '').partition('[')[0]}"
        names.add(name)
        if case.find("failure") is not None or case.find("error") is not None:
            failed.add(name)
    return failed, names - failed


def _report(failed: set[str], passed: set[str], expected: dict[str, str]) -> int:
    new, gone = sorted(failed - expected.keys()), sorted(passed & expected.keys())
    print(f"{len(passed)} tests pass, {len(failed)} can't: {_LIST.name} says why.")
    for name in new:
        print(f"fails, and isn't on the list: {name}")
    for name in gone:
        print(f"passes: take it off the list: {name}")
    return 1 if new or gone or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
