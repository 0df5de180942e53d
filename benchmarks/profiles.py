"""Where a worker's time in Python goes: py-spy's samples, as a file and as a list of the dearest functions."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_SAMPLES_PER_SECOND = 250
_START_SECONDS = 1.0
_STOP_SECONDS = 30.0
_START_OF_EVERY_STACK = ("(granian/server/", "(multiprocessing/", "(threading.py", "runpy>", "(llmproject/server.py")


class ProfilerMissingError(Exception):
    """py-spy is not installed."""


@contextlib.contextmanager
def recorded_profile(pid: int, file: Path) -> Iterator[None]:
    """Samples what holds the GIL while the block runs; `file` gets collapsed stacks, which speedscope.app reads.

    Raises ProfilerMissingError.
    """
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which("py-spy")
    if program is None:
        raise ProfilerMissingError("py-spy is not installed: it is in requirements-dev.txt")
    # --gil: else threads that wait for a lock count as busy.
    options = ["--format", "raw", "--rate", str(_SAMPLES_PER_SECOND), "--gil", "--output", str(file)]
    command = [program, "record", "--pid", str(pid), *options]
    recorder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            recorder.wait(_START_SECONDS)
        yield
    finally:
        recorder.send_signal(signal.SIGINT)
        _, complaint = recorder.communicate(timeout=_STOP_SECONDS)
    if not file.exists():
        raise ProfilerMissingError(f"py-spy wrote no profile: {complaint.strip()}")


def dearest_functions(file: Path, *, limit: int) -> Iterator[str]:
    """Lines of a table: the functions with the largest share of samples by themselves, then with what they call."""
    own: Counter[str] = Counter()
    cumulative: Counter[str] = Counter()
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = [_without_line(frame) for frame in stack.split(";")]
        own[frames[-1]] += int(count)
        for frame in {frame for frame in frames if not any(part in frame for part in _START_OF_EVERY_STACK)}:
            cumulative[frame] += int(count)
    total = own.total() or 1
    for title, shares in (("self", own), ("cumulative", cumulative)):
        yield f"{title:>10}  function ({total} samples)"
        for frame, samples in shares.most_common(limit):
            yield f"{samples / total:>10.1%}  {frame}"


def _without_line(frame: str) -> str:
    """`name (path.py:12)` -> `name (path.py)`: one function is one row, whichever line of it was sampled."""
    name, colon, line = frame.rpartition(":")
    return f"{name})" if colon and line.rstrip(")").isdecimal() else frame
