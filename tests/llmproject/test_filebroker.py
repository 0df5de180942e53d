"""The embedded broker: what is sent arrives whole, however closely its reader follows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty

import pytest
from kombu.connection import Connection
from kombu.transport.virtual import Channel

from llmproject.celery import app

MESSAGES = 300
LARGE = "x" * 200_000


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    folder = str(tmp_path)
    options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
    with Connection("filesystem://", transport="llmproject.filebroker:Transport", transport_options=options) as made:
        yield made


def test_the_gateway_uses_it_where_no_other_broker_is_named() -> None:
    if app.conf.broker_url.startswith("filesystem:"):
        assert app.connection().transport.__module__ == "llmproject.filebroker"
    else:
        assert app.conf.broker_transport is None


def test_messages_come_in_the_order_they_were_sent(connection: Connection) -> None:
    channel: Channel = connection.channel()
    for number in range(3):
        channel._put("jobs", {"number": number})
        threading.Event().wait(0.002)
    assert [channel._get("jobs")["number"] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Empty):
        channel._get("jobs")


@pytest.mark.slow
def test_a_reader_never_finds_half_a_message(connection: Connection, tmp_path: Path) -> None:
    sender = threading.Thread(target=_send_all, args=[connection.channel()])
    sender.start()
    channel: Channel = connection.channel()
    received: list[dict[str, object]] = []
    while len(received) < MESSAGES:
        try:
            received.append(channel._get("jobs"))
        except Empty:
            assert sender.is_alive() or list(tmp_path.glob("*.jobs.msg")), "a message was lost"
    sender.join()
    assert sorted(message["number"] for message in received) == list(range(MESSAGES))  # type: ignore[type-var]
    assert {message["text"] for message in received} == {LARGE}


def _send_all(channel: Channel) -> None:
    for number in range(MESSAGES):
        channel._put("jobs", {"number": number, "text": LARGE})
