"""A client whose suggestion can always be acted on: the fallback is made where the question is asked.

    with Client("http://127.0.0.1:8000", key="...") as client:
        answer = client.score("ann", orders=[Order("BTC", 0.5)], static_rate=0.05, in_force=0.08)
        charge(answer.initial_margin_rate)

Whatever goes wrong on the way, `score` and `batch` answer within their deadline: where the service refuses,
is too slow, cannot be reached, or says what cannot be so, the answer is the higher of the static rate and the
one in force, with status `fallback` and the reason. What the caller got wrong is raised as RequestError.

Nothing of the scoring process is loaded with this module.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import TimeoutError as NotDoneError
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from exchange.errors import PerpriskError
from serving import envelopes
from serving.codec import JSON, MSGPACK, Codec
from serving.wire import (
    AccountAnswer,
    Answer,
    BatchAnswer,
    BatchRequest,
    ErrorAnswer,
    EventsAnswer,
    ModelAnswer,
    Order,
    ScoreRequest,
    SentAccount,
)

T = TypeVar("T")

DEADLINE_S = 0.05
LONG_DEADLINE_S = 2.0
"""For what no order waits for: events, batches, state."""

_LARGEST_REPLY_BYTES = 256 * 1024 * 1024
_NOT_THE_CALLERS = {"timeout", "sequence_not_reached", "too_many_requests"}


class RequestError(PerpriskError):
    """The service refused what the caller asked: a 4xx with its code and field."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.field = field


class UnavailableError(PerpriskError):
    """There is no answer: `reason` says why in one word."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Rates(NamedTuple):
    """What an account is charged if nothing better is known: shares of gross notional.

    `static` is the venue's own schedule, `in_force` what was last decided, if anything was.
    """

    static: float
    in_force: float | None = None

    @property
    def floor(self) -> float:
        """The higher of the two; ValueError where they are no rates."""
        rates = [self.static] if self.in_force is None else [self.static, self.in_force]
        if not all(math.isfinite(rate) and rate >= 0.0 for rate in rates):
            raise ValueError(f"rates must be finite and not negative, not {rates}")
        return max(rates)


class AsyncClient:
    """Asks one service; for use within one event loop."""

    def __init__(
        self,
        address: str,
        key: str | None = None,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], datetime] | None = lambda: datetime.now(UTC),
        **http: Any,
    ) -> None:
        """`address` is `http://HOST:PORT`, `https://...` or `unix:PATH`.

        `clock` tells whether an answer has expired; None for a service that runs on the clock of its events.
        `http` goes to httpx: `verify` and `cert` for TLS.
        """
        self.deadline_s = deadline_s
        self._clock = clock
        self._way: _Way
        if address.startswith("unix:"):
            self._way = _Unix(address.removeprefix("unix:"), key)
        else:
            self._way = _Http(address, key, http)

    async def score(
        self,
        account_id: str,
        orders: Sequence[Order] = (),
        *,
        static_rate: float,
        in_force: float | None = None,
        account: SentAccount | None = None,
        explain: bool = False,
        cure: bool = False,
        min_sequence: int | None = None,
    ) -> Answer:
        """The margin of an account, as it stands or with orders added; never below the static rate.

        A fallback is never below the rate in force either; made here, it has no probabilities (None). Raises
        RequestError for what the caller got wrong, ValueError for rates that are none.
        """
        rates = Rates(static_rate, in_force)
        assert rates.floor >= 0.0
        request = ScoreRequest(account_id, list(orders), account, explain, cure, min_sequence)
        try:
            answer = await self._ask(Answer, "POST", "/v1/score", request, self.deadline_s)
        except UnavailableError as error:
            return self._fallback(account_id, rates, error.reason)
        return self._checked(answer, account_id, rates)

    async def batch(self, rates: Mapping[str, Rates], deadline_s: float = LONG_DEADLINE_S) -> list[Answer]:
        """The margins of many accounts as they stand, in the order of `rates`; as `score` otherwise.

        An account that the service does not know has a fallback.
        """
        assert all(entry.floor >= 0.0 for entry in rates.values())
        try:
            request = BatchRequest(list(rates))
            told = await self._ask(BatchAnswer, "POST", "/v1/score/batch", request, deadline_s)
        except UnavailableError as error:
            return [self._fallback(name, entry, error.reason) for name, entry in rates.items()]
        by_name = {answer.account_id: answer for answer in told.answers}
        unknown = set(told.unknown)
        return [
            self._checked(by_name[name], name, entry)
            if name in by_name
            else self._fallback(name, entry, "unknown_account" if name in unknown else "malformed")
            for name, entry in rates.items()
        ]

    async def events(
        self,
        events: Sequence[Mapping[str, Any]],
        source: str | None = None,
        deadline_s: float = LONG_DEADLINE_S,
    ) -> EventsAnswer:
        """Send rows; RequestError or UnavailableError where they were not taken, or nobody knows."""
        request = {"events": events} | ({} if source is None else {"source": source})
        return await self._ask(EventsAnswer, "POST", "/v1/events", request, deadline_s)

    async def account(self, account_id: str, deadline_s: float = LONG_DEADLINE_S) -> AccountAnswer:
        """An account as the service holds it; raises RequestError, UnavailableError."""
        return await self._ask(AccountAnswer, "GET", f"/v1/accounts/{account_id}", None, deadline_s)

    async def model(self, deadline_s: float = LONG_DEADLINE_S) -> ModelAnswer:
        """The model that answers; raises RequestError, UnavailableError."""
        return await self._ask(ModelAnswer, "GET", "/v1/model", None, deadline_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._way.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, kind: type[T], method: str, path: str, request: Any, deadline_s: float) -> T:
        codec = self._way.codec
        try:
            body = None if request is None else codec.encode(request)
            async with asyncio.timeout(deadline_s):
                status, told = await self._way.ask(method, path, body)
        except TimeoutError:
            raise UnavailableError("timeout", f"no answer within {deadline_s:g} s") from None
        except (OSError, EOFError, httpx.HTTPError) as fault:
            raise UnavailableError("unreachable", str(fault) or type(fault).__name__) from fault
        except msgspec.MsgspecError as fault:
            raise UnavailableError("malformed", str(fault)) from fault
        try:
            if status == 200:
                return codec.read(kind, told)
            error = codec.read(ErrorAnswer, told).error
        except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
            reason = "malformed" if status == 200 else "refused"
            raise UnavailableError(reason, f"status {status}: {fault}") from fault
        if status >= 500 or status == 429 or error.code in _NOT_THE_CALLERS:
            raise UnavailableError(error.code, error.message)
        raise RequestError(status, error.code, error.message, error.field)

    def _checked(self, answer: Answer, account_id: str, rates: Rates) -> Answer:
        """The answer where it can be so; a fallback of the service is held above the rate in force too."""
        rate = answer.initial_margin_rate
        if answer.account_id != account_id:
            return self._fallback(account_id, rates, "malformed")
        if rate is None or rate < 0.0:
            return self._fallback(account_id, rates, answer.fallback_reason or "malformed")
        if answer.valid_until <= (answer.time if self._clock is None else self._clock()):
            return self._fallback(account_id, rates, "expired")
        least = rates.static if answer.status == "ok" else rates.floor
        answer.initial_margin_rate = max(rate, least)
        return answer

    def _fallback(self, account_id: str, rates: Rates, reason: str) -> Answer:
        now = (self._clock or (lambda: datetime.now(UTC)))()
        return Answer(
            account_id=account_id,
            time=now,
            sequence=-1,
            valid_until=now,
            pd_liquidation_1h=None,
            pd_liquidation_8h=None,
            pd_liquidation_24h=None,
            pd_negative_equity_24h=None,
            expected_loss_usd=None,
            static_initial_margin_rate=rates.static,
            initial_margin_rate=rates.floor,
            maintenance_margin_rate=None,
            status="fallback",
            fallback_reason=reason,
            model_version="",
        )


class Client:
    """`AsyncClient` for programs without an event loop: its own runs in a thread. Threads may share it."""

    def __init__(
        self,
        address: str,
        key: str | None = None,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], datetime] | None = lambda: datetime.now(UTC),
        **http: Any,
    ) -> None:
        """See `AsyncClient`."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._client = AsyncClient(address, key, deadline_s, clock, **http)

    def score(
        self, account_id: str, orders: Sequence[Order] = (), *,
        static_rate: float, in_force: float | None = None, **more: Any,
    ) -> Answer:  # fmt: skip
        """As `AsyncClient.score`."""
        work = self._client.score(account_id, orders, static_rate=static_rate, in_force=in_force, **more)
        try:
            return self._done(work, self._client.deadline_s)
        except UnavailableError as error:  # the thread itself was held up
            return self._client._fallback(account_id, Rates(static_rate, in_force), error.reason)

    def batch(self, rates: Mapping[str, Rates], deadline_s: float = LONG_DEADLINE_S) -> list[Answer]:
        """As `AsyncClient.batch`."""
        try:
            return self._done(self._client.batch(rates, deadline_s), deadline_s)
        except UnavailableError as error:
            return [self._client._fallback(name, entry, error.reason) for name, entry in rates.items()]

    def events(
        self,
        events: Sequence[Mapping[str, Any]],
        source: str | None = None,
        deadline_s: float = LONG_DEADLINE_S,
    ) -> EventsAnswer:
        """As `AsyncClient.events`."""
        return self._done(self._client.events(events, source, deadline_s), deadline_s)

    def account(self, account_id: str, deadline_s: float = LONG_DEADLINE_S) -> AccountAnswer:
        """As `AsyncClient.account`."""
        return self._done(self._client.account(account_id, deadline_s), deadline_s)

    def model(self, deadline_s: float = LONG_DEADLINE_S) -> ModelAnswer:
        """As `AsyncClient.model`."""
        return self._done(self._client.model(deadline_s), deadline_s)

    def close(self) -> None:
        """Close the connections and end the thread."""
        if not self._loop.is_closed():
            self._done(self._client.close(), LONG_DEADLINE_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _done(self, work: Coroutine[Any, Any, T], deadline_s: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(deadline_s + DEADLINE_S)
        except NotDoneError:
            future.cancel()
            raise UnavailableError("timeout", f"no answer within {deadline_s:g} s") from None


class _Way(Protocol):
    """A transport: status and body for a method, a path and a body."""

    codec: Codec

    async def ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes | msgspec.Raw]: ...
    async def close(self) -> None: ...


class _Http:
    codec = JSON

    def __init__(self, address: str, key: str | None, options: dict[str, Any]) -> None:
        headers = {"content-type": JSON.media_type}
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        # the deadline is on the whole; and no proxy of the environment's gets to see the key
        self._client = httpx.AsyncClient(
            base_url=address, headers=headers, timeout=None, trust_env=False, **options
        )

    async def ask(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        # dots too, or they would be taken for a way up
        quoted = "/".join(quote(part, safe="") for part in path.split("/", 3)).replace("/.", "/%2E")
        reply = await self._client.request(method, quoted, content=body)
        return reply.status_code, reply.content

    async def close(self) -> None:
        await self._client.aclose()


class _Unix:
    """Connections are taken and given back; one whose answer was not waited for is closed."""

    codec = MSGPACK

    def __init__(self, path: str, key: str | None) -> None:
        self._path = path
        self._key = key
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, _method: str, path: str, body: bytes | None) -> tuple[int, msgspec.Raw]:
        asked = envelopes.Envelope(path, key=self._key)
        if body is not None:
            asked.body = msgspec.Raw(body)
        while True:
            kept = bool(self._idle)
            streams = self._idle.pop() if kept else await asyncio.open_unix_connection(self._path)
            reader, writer = streams
            try:
                writer.write(envelopes.frame(asked))
                await writer.drain()
                size = int.from_bytes(await reader.readexactly(envelopes.LENGTH_BYTES), "big")
                if size > _LARGEST_REPLY_BYTES:
                    raise EOFError(f"a reply of {size} bytes")
                reply = _replies.decode(await reader.readexactly(size))
            except BaseException as error:
                writer.close()
                # a service that was started anew has closed what was kept; questions may be asked again
                if kept and isinstance(error, (OSError, EOFError)) and path != "/v1/events":
                    continue
                raise
            self._idle.append(streams)
            return reply.status, reply.body

    async def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        self._idle.clear()


class _Packed(msgspec.Struct):
    status: int
    body: msgspec.Raw


_replies = msgspec.msgpack.Decoder(_Packed)
