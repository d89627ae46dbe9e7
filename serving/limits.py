"""What a caller may take up of the service: one definition for every way in."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """Bounds on size, time and number.

    A body that is too large is read to its end before it is refused, within bounds, because a caller that
    is cut off while sending sees a broken connection and no reason.
    """

    body_bytes: int = 64 * 1024
    batch_body_bytes: int = 8 * 1024 * 1024
    drained_bytes: int = 16 * 1024 * 1024
    body_s: float = 2.0
    """Seconds within which a body, or the rest of a frame, must be there."""
    sync_s: float = 0.05
    """Seconds after which accepted events are on the disk."""
    head_bytes: int = 16 * 1024
    """Request line and headers together."""
    head_s: float = 2.0
    """Seconds from a request's first byte to the end of its headers, and from connecting to a request."""
    idle_s: float = 75.0
    """Seconds for which a connection is kept between requests."""
    write_s: float = 2.0
    """Seconds for which an answer may find no room at a caller that does not read."""
    connections: int = 1_024
    """Connections above this many are told that the service is overloaded."""
    unready: int = 64
    """Connections whose next head has begun or is the first, and is not there; above it ..."""
    unready_s: float = 0.1
    """... those that have been waiting for so many seconds are told that the service is overloaded."""
    pipelined: int = 64
    """Requests that may wait on one connection."""
    turn_s: float = 0.02
    """Seconds of work in one turn of the event loop; what comes up later in the turn is refused."""
    held_bytes: int = 128 * 1024 * 1024
    """Bytes of all bodies together that have come in part."""
