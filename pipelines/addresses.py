"""Addresses to listen on, and which of them need keys."""

from __future__ import annotations

from ipaddress import ip_address

from exchange.errors import InputError


def checked(host: str, keyed: bool) -> str:
    """The address that `--host` names; `localhost` is this machine's own, other names are not looked up.

    `keyed`: whether callers need keys. Without them only addresses of this machine itself are taken, since
    whoever can send to it could then do everything. Raises InputError for any other.
    """
    text = "127.0.0.1" if host == "localhost" else host
    try:
        address = ip_address(text)
    except ValueError:
        raise InputError(
            f"--host: {host!r} is not an address; names but localhost are not looked up"
        ) from None
    if not keyed and not address.is_loopback:
        raise InputError(
            f"--host: {host!r} is not a loopback address; refusing to start there without --keys"
        )
    return text
