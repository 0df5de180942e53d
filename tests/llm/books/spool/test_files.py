"""The file in which settlements wait: what it keeps through a crash, a full disk, and rows that somebody has locked."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm.books.operations import CloseCall
from llm.books.spool import files as spool_module
from llm.books.spool.files import SUFFIX, Spool, SpoolFile, abandoned_files
from llm.books.spool.records import encode_line
from llm.enums import CallOutcome, UsageSource, UsageStatus
from llm.ids import uuid7
from llm.types import TokenCounts
from tests.llm.books.making import a_close


def closes(count: int) -> list[CloseCall]:
    return [
        a_close(
            uuid7(),
            counts=TokenCounts(9 + number, 4, extra_meters={"web_searches": number}),
            disputed_usage={"text": "naïve\nline"} if number % 2 else None,
            account_id=number,
        )
        for number in range(count)
    ]


def read_all(file: SpoolFile, *, limit: int = 1000) -> list[CloseCall]:
    found: list[CloseCall] = []
    while piece := file.read(limit):
        found += piece
        file.forget_read()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / f"{uuid7()}{SUFFIX}"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Lets only so many bytes of settlements onto the disk from now on."""
    write = os.pwrite
    room: list[int] = []

    def pwrite(fd: int, data: memoryview, position: int) -> int:
        if not room:
            return write(fd, data, position)
        if room[0] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(fd, data[: room[0]], position)
        room[0] -= written
        return written

    monkeypatch.setattr(os, "pwrite", pwrite)

    def leave_room(size: int) -> None:
        room[:] = [size]

    yield leave_room
    room.clear()


# --- What it keeps ----------------------------------------------------------------------------------------------------


def test_what_is_appended_comes_back_as_it_was(path: Path) -> None:
    written = [
        *closes(3),
        a_close(
            uuid7(), status=UsageStatus.ESTIMATED, outcome=CallOutcome.SHUTDOWN, usage_source=UsageSource.ESTIMATED
        ),
    ]
    file = SpoolFile.create(path)
    file.append(written[:2])
    file.append(written[2:])
    assert read_all(file, limit=3) == written
    file.close()
    assert not path.exists()


@pytest.mark.slow
def test_every_prefix_of_the_file_recovers_its_whole_records(path: Path) -> None:
    written = closes(4)
    lines = [encode_line(close) for close in written]
    data = b"".join(lines)
    ends = [sum(map(len, lines[:count])) for count in range(len(lines) + 1)]
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        file = SpoolFile.take_over(path)
        whole = sum(end <= size for end in ends) - 1
        assert path.stat().st_size == ends[whole]
        assert read_all(file) == written[:whole]
        file.close()
        assert not path.exists()


def test_a_file_larger_than_one_read_is_taken_over_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system reads 2 GiB at the most, however much is asked for; here it is 100 bytes, less than a record."""
    written = closes(9)
    path.write_bytes(b"".join(map(encode_line, written)) + encode_line(written[0])[:-7])
    read = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, position: read(fd, min(size, 100), position))
    file = SpoolFile.take_over(path)
    assert read_all(file) == written
    file.close()


def test_what_is_appended_behind_a_torn_record_is_read(path: Path) -> None:
    first, second, third = closes(3)
    path.write_bytes(encode_line(first) + encode_line(second)[:-7])
    file = SpoolFile.take_over(path)
    file.append([third])
    assert read_all(file) == [first, third]
    file.close()


@pytest.mark.parametrize("position", [0, 8, 40, -2])
def test_a_damaged_record_costs_no_other_and_is_kept_for_people(path: Path, position: int) -> None:
    first, second, third = closes(3)
    damaged = bytearray(encode_line(second))
    damaged[position] ^= 0x01
    path.write_bytes(encode_line(first) + bytes(damaged) + encode_line(third))
    file = SpoolFile.take_over(path)
    assert read_all(file) == [first, third]
    assert file.damaged == 1
    file.close()
    assert not path.exists()
    assert bytes(damaged) in path.with_suffix(".damaged").read_bytes()


def test_what_was_read_and_not_written_is_read_again(path: Path) -> None:
    written = closes(2)
    file = SpoolFile.create(path)
    file.append(written)
    assert file.read(10) == written
    assert file.read(10) == written
    file.close()
    assert read_all(SpoolFile.take_over(path)) == written


def test_a_record_larger_than_what_is_read_at_once_is_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "_READ_BYTES", 100)
    large = a_close(uuid7(), disputed_usage={"text": "x" * 5000})
    file = SpoolFile.create(path)
    file.append([large])
    assert read_all(file, limit=1) == [large]
    file.close()


# --- What can't be written yet ----------------------------------------------------------------------------------------


def test_what_is_deferred_comes_after_all_others_and_stays_in_the_file(path: Path) -> None:
    written = closes(4)
    file = SpoolFile.create(path)
    file.append(written)
    assert file.read(2) == written[:2]
    file.forget_read(deferred=written[:1])
    assert file.read(10) == written[2:]
    file.forget_read()
    assert file.waiting_bytes == path.stat().st_size > 0
    assert file.read(10) == written[:1]
    file.close()
    assert read_all(SpoolFile.take_over(path)) == written


def test_a_deferred_record_makes_the_file_no_larger_however_often_it_is_tried(path: Path) -> None:
    written = closes(3)
    file = SpoolFile.create(path)
    file.append(written)
    size = path.stat().st_size
    for _ in range(20):
        file.forget_read(deferred=file.read(10))
    assert path.stat().st_size == size
    assert file.read(2) == written[:2]
    file.forget_read()
    assert file.read(2) == written[2:]
    file.forget_read()
    assert file.waiting_bytes == path.stat().st_size == 0
    file.close()


def test_a_try_of_deferred_records_that_fails_loses_none(path: Path) -> None:
    written = closes(2)
    file = SpoolFile.create(path)
    file.append(written)
    file.forget_read(deferred=file.read(10))
    assert file.read(10) == written
    # The database went away, so nothing was said of them.
    assert file.read(10) == written
    file.close()


def test_a_try_of_deferred_records_that_fails_loses_none_when_others_come_meanwhile(path: Path) -> None:
    first, second, third = closes(3)
    file = SpoolFile.create(path)
    file.append([first, second])
    file.forget_read(deferred=file.read(10))
    assert file.read(10) == [first, second]
    # The database went away, so nothing was said of them, and a call under way ended.
    file.append([third])
    assert file.read(10) == [third]
    file.forget_read()
    assert file.waiting_bytes > 0
    assert file.read(10) == [first, second]
    file.close()
    assert read_all(SpoolFile.take_over(path)) == [first, second, third]


# --- Whose it is ------------------------------------------------------------------------------------------------------


def test_a_spool_has_one_holder(path: Path) -> None:
    file = SpoolFile.create(path)
    with pytest.raises(BlockingIOError):
        SpoolFile.take_over(path)
    assert list(abandoned_files(path.parent)) == []
    file.close()


def test_the_spools_of_the_dead_are_found_and_their_reserve_is_freed(tmp_path: Path) -> None:
    path = tmp_path / f"{uuid7()}{SUFFIX}"
    path.write_bytes(encode_line(closes(1)[0]))
    path.with_suffix(".reserve").write_bytes(b"\0" * 100)
    Spool(tmp_path).open().close()
    [file] = abandoned_files(tmp_path)
    assert file.path == path
    assert not path.with_suffix(".reserve").exists()
    file.close()


def test_a_file_that_was_removed_under_its_lock_is_never_written_to(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may take a new and empty file for a dead one's, and remove it, before its owner has locked it."""
    lock = fcntl.flock
    thefts: list[Path] = []

    def flock(fd: int, operation: int) -> None:
        if not thefts:
            thefts.append(path)
            path.unlink()
        lock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    file = SpoolFile.create(path)
    written = closes(1)
    file.append(written)
    assert path.read_bytes() == encode_line(written[0])
    file.close()


def test_an_owner_waits_for_who_took_its_new_file_for_a_dead_ones(path: Path) -> None:
    path.touch()
    thief = SpoolFile.take_over(path)
    threading.Timer(0.1, thief.close).start()
    file = SpoolFile.create(path)
    file.append(closes(1))
    assert path.stat().st_size == file.waiting_bytes
    file.close()


# --- A full disk ------------------------------------------------------------------------------------------------------


def is_full(spool: Spool) -> bool:
    return spool.is_full


@pytest.mark.parametrize("room", [0, 1, 500])
def test_what_does_not_fit_onto_the_disk_leaves_the_file_as_it_was(
    path: Path, disk: Callable[[int], None], room: int
) -> None:
    first, *others = closes(3)
    file = SpoolFile.create(path)
    file.append([first])
    before = path.read_bytes()
    disk(room)
    with pytest.raises(OSError, match="No space left"):
        file.append(others)
    assert path.read_bytes() == before
    assert read_all(file) == [first]
    file.close()


def test_a_full_disk_costs_the_reserve_and_no_settlement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = closes(2)
    spool = Spool(tmp_path)
    spool.prepare()
    [reserve] = tmp_path.glob("*.reserve")
    assert reserve.stat().st_blocks * 512 >= spool_module.RESERVE_BYTES
    write = spool_module._write_all

    def write_beside_the_reserve(fd: int, data: bytes, position: int) -> None:
        if reserve.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(fd, data, position)

    monkeypatch.setattr(spool_module, "_write_all", write_beside_the_reserve)
    spool.append(written)
    assert is_full(spool)
    assert read_all(spool.open()) == written
    spool.prepare()
    assert not is_full(spool)
    assert reserve.exists()
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_full(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "missing")
    spool.prepare()
    assert is_full(spool)
    (tmp_path / "missing").mkdir()
    spool.prepare()
    assert not is_full(spool)
    spool.close()
