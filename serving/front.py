"""The way in: what every transport does with a request before the service answers it."""

from __future__ import annotations

from serving.codec import JSON, MSGPACK, Codec
from serving.limits import Limits
from serving.overload import Overload
from serving.service import Call, Reply, Route, Service
from serving.wire import RefusalError

_ACCOUNT = "{account_id}"


class Front:
    """Routes by address, and who is let in; one for all transports of a process.

    Only requests for `/v1` are refused under overload: whoever watches the service must be able to see it.
    """

    def __init__(self, service: Service, overload: Overload | None = None) -> None:
        self.service = service
        self.limits: Limits = service.limits
        self.overload = overload or Overload(service.limits)
        service.counts_refused(lambda: self.overload.refused)
        self._exact: dict[str, Route] = {}
        self._prefixes: list[tuple[str, Route]] = []
        for route in service.routes:
            path = route.operation.path
            if path.endswith(_ACCOUNT):
                self._prefixes.append((path.removesuffix(_ACCOUNT), route))
            else:
                self._exact[path] = route
        self._overloaded = {
            codec.name: service.told(
                RefusalError(503, "overloaded", "more is asked than can be answered in time"), codec
            )
            for codec in (JSON, MSGPACK)
        }

    def find(self, path: str) -> tuple[Route, str] | None:
        """The route of a path that is decoded, and the account that it names; None where there is none."""
        route = self._exact.get(path)
        if route is not None:
            return route, ""
        for prefix, route in self._prefixes:
            if path.startswith(prefix):
                return route, path[len(prefix) :]  # names of accounts may hold slashes
        return None

    def answer(self, route: Route, call: Call, key: str | None = None) -> Reply:
        """Let a call in and answer it, or turn it away; never raises.

        `key` is what the caller showed to be let in (`Authorization: Bearer KEY`, `key` of an envelope).
        """
        if route.operation.path.startswith("/v1/") and not self.overload.admits():
            return self.overloaded(route, call.codec)
        return self.service.answer(route, call, key)

    def overloaded(self, route: Route, codec: Codec = JSON) -> Reply:
        """The reply to what is too much."""
        route.meter(503, 0.0)
        return self._overloaded[codec.name]

    def refused(self, route: Route | None, refusal: RefusalError, codec: Codec = JSON) -> Reply:
        """The reply to what a transport itself refuses."""
        reply = self.service.refused(refusal, codec)
        if route is not None:
            route.meter(reply.status, 0.0)
        return reply
