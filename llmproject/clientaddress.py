"""The client address of a request, as far as a proxy can be trusted."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

UNKNOWN = "unknown"
_IPV6_SITE_BITS = 64


def client_address(peer: str, forwarded_for: str, trusted: Sequence[Network]) -> str:
    """The caller's IPv4 address, or its IPv6 /64, since a single customer of a provider has a whole /64.

    peer: the other end of the connection. forwarded_for: its X-Forwarded-For. Anyone can send that header, so it counts
    only if the peer is trusted: then the rightmost address that isn't a trusted proxy.
    """
    address = _parse(peer)
    for entry in reversed(forwarded_for.split(",")):
        if address is None or not _is_trusted(address, trusted):
            break
        if (before := _parse(entry)) is None:
            break
        address = before
    return UNKNOWN if address is None else _site(address)


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _parse(text: str) -> Address | None:
    """An address, with or without a port: 192.0.2.1, 192.0.2.1:443, 2001:db8::1, [2001:db8::1]:443."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _site(address: Address) -> str:
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.IPv6Network((address, _IPV6_SITE_BITS), strict=False))
