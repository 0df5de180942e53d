from __future__ import annotations

import ipaddress

import pytest

from llmproject.clientaddress import client_address

PROXIES = [ipaddress.ip_network("127.0.0.1"), ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        # A stranger may send what it likes.
        ("203.0.113.5", "198.51.100.9", "203.0.113.5"),
        ("203.0.113.5", "127.0.0.1, 10.0.0.1", "203.0.113.5"),
        # Behind a proxy: the rightmost that isn't one, whatever stands to its left.
        ("127.0.0.1", "198.51.100.9", "198.51.100.9"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.9", "198.51.100.9"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.9, 10.1.2.3", "198.51.100.9"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.9,10.1.2.3 , 10.9.9.9", "198.51.100.9"),
        ("fd00::1", "198.51.100.9", "198.51.100.9"),
        ("127.0.0.1", "10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "", "127.0.0.1"),
        # What can't be read is where believing ends.
        ("127.0.0.1", "198.51.100.9, nonsense", "127.0.0.1"),
        ("127.0.0.1", "198.51.100.9, nonsense, 10.1.2.3", "10.1.2.3"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("", "198.51.100.9", "unknown"),
        ("nonsense", "198.51.100.9", "unknown"),
        # As proxies write them.
        ("127.0.0.1", "198.51.100.9:4711", "198.51.100.9"),
        ("127.0.0.1", "[2001:db8:1:2:3::4]:4711", "2001:db8:1:2::/64"),
        ("::ffff:127.0.0.1", "::ffff:198.51.100.9", "198.51.100.9"),
        # A site is one caller.
        ("2001:db8:1:2:aaaa::1", "", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::1", "198.51.100.9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "", "fe80::/64"),
    ],
)
def test_who_a_request_comes_from(peer: str, forwarded_for: str, address: str) -> None:
    assert client_address(peer, forwarded_for, PROXIES) == address


def test_without_trusted_proxies_the_header_counts_for_nothing() -> None:
    assert client_address("127.0.0.1", "198.51.100.9", ()) == "127.0.0.1"
