"""Large bodies are checked in a process of their own, which ends with the check.

A parser holds Python's lock for as long as it takes, so a thread would stop every stream of this process; and what a
process has taken in memory it gives back by ending. See docs/decisions/0021.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import structlog

from llm.dialects.json_size import count_values
from llm.dialects.strict_json import load_counted
from llm.errors import InvalidRequest, Overloaded

log = structlog.get_logger("llm.api")

_ROOT = Path(__file__).resolve().parent.parent.parent
# A check of 32 MB takes half a second, most of it for texts full of escapes.
_MAX_CPU_SECONDS = 20
# Of a body's size: its bytes, its objects, and both written once more; beside what Python itself takes.
_MEMORY_PER_BYTE = 20
_OWN_MEMORY = 512 * 1024**2
# The gateway's secrets are none of the checker's.
_PASSED_ON = ("LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH")
_UNCHECKED = "This gateway can't read a body of this size at the moment. Try again shortly."

# One at a time: each takes a core and several times its body in memory.
_threads = ThreadPoolExecutor(1, thread_name_prefix="llm-bodies")


async def check_apart(raw: bytes) -> int:
    """`count_values` and all checks of `load_object`, without its result. Raises InvalidRequest or Overloaded."""
    check = _Check(raw)
    try:
        verdict = await asyncio.get_running_loop().run_in_executor(_threads, check.run)
    finally:
        check.stop()
    if "refusal" in verdict:
        raise InvalidRequest(verdict["refusal"])
    values: int = verdict["values"]
    return values


class _Check:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self) -> dict[str, object]:
        """In a thread, which mostly waits without Python's lock."""
        if self._is_stopped:
            raise Overloaded(_UNCHECKED)
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        command = [sys.executable, "-m", "llm.api.bodycheck", str(len(self._raw))]
        with subprocess.Popen(
            command,
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            self._process = process
            return self._ask(process)

    def stop(self) -> None:
        """Its caller has left, or it is done."""
        self._is_stopped = True
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _ask(self, process: subprocess.Popen[bytes]) -> dict[str, object]:
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            # The pipe takes it as fast as the other side reads; nothing is written there before all was read.
            process.stdin.write(self._raw)
            process.stdin.close()
        answer = process.stdout.read()
        try:
            verdict: dict[str, object] = orjson.loads(answer)
        except orjson.JSONDecodeError:
            code = process.wait()
            log.warning("a body could not be checked", bytes=len(self._raw), exit_code=code)
            raise Overloaded(_UNCHECKED) from None
        return verdict


def main() -> None:
    """The checker: a body on standard input, a verdict on standard output."""
    size = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_SECONDS, _MAX_CPU_SECONDS))
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit
        memory = _OWN_MEMORY + size * _MEMORY_PER_BYTE
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    raw = sys.stdin.buffer.read()
    try:
        values = count_values(raw)
        load_counted(raw)
        verdict: dict[str, object] = {"values": values}
    except InvalidRequest as error:
        verdict = {"refusal": error.message}
    sys.stdout.buffer.write(orjson.dumps(verdict))
    sys.stdout.buffer.flush()
    # Without taking apart what has been built: the system is quicker.
    os._exit(0)


if __name__ == "__main__":
    main()
