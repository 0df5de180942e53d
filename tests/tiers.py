"""Keeps the tests of `make test-fast` from starting processes."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator

import pytest

_EVENTS = frozenset(("os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"))

_is_refused = False


@contextlib.contextmanager
def refused_processes() -> Iterator[None]:
    """A test that starts a process meanwhile fails, and is told what to do about it."""
    global _is_refused
    _install_hook()
    _is_refused = True
    try:
        yield
    finally:
        _is_refused = False


@functools.cache
def _install_hook() -> None:
    """Python never lets go of such a hook, so there is one for the whole run."""
    sys.addaudithook(_refuse)


def _refuse(event: str, _arguments: tuple[object, ...]) -> None:
    if _is_refused and event in _EVENTS:
        pytest.fail(
            "It starts a process: mark it `processes` or `e2e`, which `make test-fast` leaves out.", pytrace=True
        )
