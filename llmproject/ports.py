"""Whether a port is free."""

from __future__ import annotations

import socket


def port_problem(host: str, port: int) -> str:
    """Why we can't listen there, as one sentence; "" if we can.

    The server itself wouldn't notice: it shares the port (SO_REUSEPORT) with the other process.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            # Ignores lingering connections of an earlier run that has ended; a listener still counts.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except (OSError, UnicodeError) as error:  # the latter: a name that can't be a host's
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        return f"Can't listen on {host}:{port} ({reason}); stop what is using it, or set WEB_PORT or WEB_HOST."
    return ""
