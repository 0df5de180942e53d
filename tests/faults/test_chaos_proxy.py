"""The proxy does to connections what its mode says, and lets go of it again."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.faults.chaos_proxy import PASS, ChaosProxy, Mode

PATIENCE_S = 5.0


def _echo(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_send_back, args=(connection,), daemon=True).start()


def _send_back(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(65_536):
            connection.sendall(data)


@pytest.fixture
def proxy() -> Iterator[ChaosProxy]:
    """In front of a server that sends everything back."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_echo, args=(listener,), daemon=True)
        thread.start()
        with ChaosProxy(*listener.getsockname()) as proxy:
            yield proxy
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(PATIENCE_S)


def connect(proxy: ChaosProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE_S)


def say(connection: socket.socket, data: bytes) -> bytes:
    """What comes back, at most as much as was said."""
    connection.sendall(data)
    return receive(connection, len(data))


def receive(connection: socket.socket, length: int) -> bytes:
    received = b""
    while len(received) < length and (piece := connection.recv(65_536)):
        received += piece
    return received


def test_bytes_pass_both_ways(proxy: ChaosProxy) -> None:
    with connect(proxy) as connection:
        assert say(connection, b"x" * 300_000) == b"x" * 300_000


def test_the_end_of_one_direction_passes_too(proxy: ChaosProxy) -> None:
    with connect(proxy) as connection:
        connection.sendall(b"last words")
        connection.shutdown(socket.SHUT_WR)
        assert receive(connection, 100) == b"last words"


def test_an_address_names_the_database_behind_it() -> None:
    with ChaosProxy("127.0.0.1", 1, user="me:secret") as proxy:
        assert proxy.url("books") == f"postgres://me:secret@127.0.0.1:{proxy.port}/books"


def test_a_reset_ends_open_connections_and_new_ones_until_it_is_over(proxy: ChaosProxy) -> None:
    with connect(proxy) as connection:
        assert say(connection, b"hello") == b"hello"
        proxy.set_mode(Mode("reset"))
        with pytest.raises(ConnectionResetError):
            say(connection, b"hello")
    # It may come so soon that the connection isn't even there.
    with pytest.raises(ConnectionError), connect(proxy) as connection:
        say(connection, b"hello")
    proxy.set_mode(PASS)
    with connect(proxy) as connection:
        assert say(connection, b"hello") == b"hello"


def test_who_is_refused_finds_the_same_port_open_again_later(proxy: ChaosProxy) -> None:
    port = proxy.port
    proxy.set_mode(Mode("refuse"))
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.set_mode(PASS)
    assert proxy.port == port
    with connect(proxy) as connection:
        assert say(connection, b"hello") == b"hello"


def test_a_black_hole_accepts_and_never_answers(proxy: ChaosProxy) -> None:
    proxy.set_mode(Mode("blackhole"))
    with connect(proxy) as connection:
        connection.sendall(b"hello")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        proxy.set_mode(PASS)
        connection.settimeout(PATIENCE_S)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_black_hole_swallows_what_is_on_its_way_back(proxy: ChaosProxy) -> None:
    with connect(proxy) as connection:
        assert say(connection, b"hello") == b"hello"
        proxy.set_mode(Mode("blackhole"))
        connection.sendall(b"hello")
        connection.settimeout(0.2)
        with pytest.raises(TimeoutError):
            connection.recv(1)


def test_a_cut_lets_so_many_bytes_through(proxy: ChaosProxy) -> None:
    with connect(proxy) as connection:
        assert say(connection, b"0123456789") == b"0123456789"
        proxy.set_mode(Mode("cut", 8))
        connection.sendall(b"01234")
        assert receive(connection, 10) == b"012"


@pytest.mark.parametrize("mode", [Mode("latency", 0.3), Mode("slow", 30)])
def test_a_slow_network_delivers_everything_later(proxy: ChaosProxy, mode: Mode) -> None:
    proxy.set_mode(mode)
    with connect(proxy) as connection:
        connection.sendall(b"0123456789")
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(PATIENCE_S)
        assert receive(connection, 10) == b"0123456789"
