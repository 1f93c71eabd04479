"""The host names that mean this machine."""

from ipaddress import ip_address

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""The usual loopback hosts, as they are written in ``Host`` headers."""


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is "localhost" or a loopback address, with or without brackets."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
