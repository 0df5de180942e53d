"""A server of our own that crashes, and a disk of our own that gets full."""

from __future__ import annotations

import errno
from pathlib import Path

import psycopg
import pytest

from tests.faults.cluster import Cluster, server_programs
from tests.faults.small_disk import SmallDisk, can_mount


@pytest.mark.slow
@pytest.mark.skipif(server_programs() is None, reason="there is no PostgreSQL server on this machine")
def test_a_cluster_that_crashed_comes_back_with_what_was_committed() -> None:
    with Cluster() as cluster:
        with psycopg.connect(f"{cluster.url}/postgres", autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS value")
            cluster.stop("immediate")
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT 1")
        cluster.start()
        with psycopg.connect(f"{cluster.url}/postgres") as connection:
            assert connection.execute("SELECT value FROM kept").fetchone() == (7,)


@pytest.mark.skipif(not can_mount(), reason="only root may mount a disk")
@pytest.mark.processes
def test_a_full_disk_takes_nothing_more_and_then_does_again(tmp_path: Path) -> None:
    with SmallDisk(tmp_path / "disk", megabytes=1) as disk:
        with disk.full(), pytest.raises(OSError, match=r"No space left") as caught:
            (disk.path / "more").write_bytes(b"x" * 4096)
        assert caught.value.errno == errno.ENOSPC
        (disk.path / "more").write_bytes(b"x" * 4096)
