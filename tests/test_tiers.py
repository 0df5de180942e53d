"""What `make test-fast` leaves out, and that nothing else gets in."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.tiers import refused_processes


def test_a_process_is_refused_in_the_fast_tier() -> None:
    with refused_processes(), pytest.raises(pytest.fail.Exception, match="mark it `processes`"):
        subprocess.run([sys.executable, "-c", ""], check=True)
    with refused_processes(), pytest.raises(pytest.fail.Exception, match="mark it `processes`"):
        os.fork()
