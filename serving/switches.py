"""Switches of the margin policy: which parts are on and how strong, by venue and market, and every change.

    {"switches": {"venue": {...parameters...}, "markets": {"BTC-PERP": {"loading": 4.0}}},
     "changes": [{"sequence": 1, "time": "...", "who": "...", "why": "...", "market": null,
                  "parameter": "loading", "before": 3.0, "after": 4.0}]}

A market has the venue's parameters but for those that are set for it. A change names who made it and why,
holds the value before and after, and is numbered without gaps; a file whose changes do not lead to its
switches is refused. The file is replaced whole: whoever reads it sees all of a change or nothing.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from exchange.errors import InputError
from exchange.units import HOUR_US, PPM
from serving.frames import sync_folder
from serving.glide import NEVER_US, Pace
from serving.policy import LOADING, TARGET_PD
from serving.wire import LONGEST_NAME

Floats = npt.NDArray[np.float64]
Value = bool | int | float | str | None

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Strength = Annotated[float, msgspec.Meta(ge=0.0, le=100.0)]
Ppm = Annotated[int, msgspec.Meta(ge=0, le=PPM)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Market = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]


class Parameters(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Parameters of one market; shares and rates are fractions where their name does not say ppm."""

    account_risk: bool = True
    loading: Strength = LOADING
    target_pd: Share = TARGET_PD
    volatility: bool = False
    sigmas: Strength = 2.33
    """Standard deviations of the move over the margin period of risk."""
    stress_weight: Share = 0.0
    stressed_sigma_day: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 0.0
    floor: bool = True
    buffer: Share = 0.25
    liquidity: Strength = 0.0
    ceiling_ppm: Ppm = PPM
    open_positions: Literal["stamped", "priced"] = "stamped"
    entering: Literal["kept", "fresh"] = "kept"
    band_ppm: Ppm = 2_500
    windows: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 3
    rise_ppm_per_h: Ppm = 20_000
    fall_ppm_per_h: Ppm = 5_000
    notice_h: Annotated[float, msgspec.Meta(ge=0.0, le=8_760.0)] | None = None
    """Hours after which open positions begin to follow; None: they never do."""

    def __post_init__(self) -> None:
        """Refuse what cannot go together: msgspec tells it as a ValidationError."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be finite")
        if self.fall_ppm_per_h > 0 and self.fall_ppm_per_h >= self.rise_ppm_per_h:
            raise ValueError("fall_ppm_per_h must be less than rise_ppm_per_h: falls are slower than rises")
        if self.stress_weight > 0.0 and self.stressed_sigma_day == 0.0:
            raise ValueError("stress_weight needs a stressed_sigma_day")

    @property
    def terms(self) -> Floats:
        """A row of terms, float64[TERMS] of `serving.parts`."""
        row = [
            self.loading if self.account_risk else 0.0,
            self.target_pd,
            self.sigmas if self.volatility else 0.0,
            self.stress_weight,
            self.stressed_sigma_day,
            self.floor,
            self.buffer,
            self.liquidity,
            self.ceiling_ppm / PPM,
            self.open_positions == "stamped",
            self.entering == "kept",
        ]
        return np.array(row, np.float64)

    @property
    def pace(self) -> Pace:
        """How fast rates may move."""
        return Pace(self.band_ppm, self.windows, self.rise_ppm_per_h, self.fall_ppm_per_h)

    @property
    def notice_us(self) -> int:
        """The notice that open positions are given, NEVER_US for ever."""
        return NEVER_US if self.notice_h is None else round(self.notice_h * HOUR_US)


class Switches(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The venue's parameters, and what is set otherwise for single markets."""

    venue: Parameters = Parameters()
    markets: dict[Market, dict[str, Value]] = {}

    def of(self, market: str) -> Parameters:
        """Parameters of a market; InputError where what is set for it cannot be."""
        return _with(self.venue, self.markets.get(market, {}))

    def terms_of(self, markets: list[str]) -> Floats:
        """Rows of terms by market, float64[n, TERMS]."""
        return np.array([self.of(market).terms for market in markets])


class Change(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One parameter was changed."""

    sequence: Annotated[int, msgspec.Meta(ge=1)]
    time: datetime
    who: Text
    why: Text
    market: Market | None
    """None for the venue's."""
    parameter: str
    before: Value
    after: Value
    """None where a market goes back to the venue's."""

    @property
    def text(self) -> str:
        """The change as a line, as the audit log has it."""
        where = "venue" if self.market is None else self.market
        return (
            f"margin policy change {self.sequence} by {self.who}: {where} {self.parameter}"
            f" {self.before!r} -> {self.after!r} ({self.why})"
        )


class Policy(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Switches and how they came to be so."""

    switches: Switches = Switches()
    changes: list[Change] = []


class Wanted(NamedTuple):
    """A change that somebody wants: `market` None for the venue, `value` None for back to the venue's."""

    market: str | None
    parameter: str
    value: Value


def changed(policy: Policy, wanted: Wanted, who: str, why: str, time: datetime) -> Policy:
    """The policy after a change; InputError for one that cannot be, or changes nothing."""
    market, parameter, value = wanted
    if parameter not in Parameters.__struct_fields__:
        raise InputError(f"{parameter!r} is no parameter of the margin policy")
    before = _set_for(policy.switches, market, parameter)
    if before == value and type(before) is type(value):
        raise InputError(f"{parameter} is {value!r} already")
    last = policy.changes[-1] if policy.changes else None
    if last is not None and time < last.time:
        raise InputError(f"a change at {time.isoformat()} would come before change {last.sequence}")
    change = _checked(
        Change(0 if last is None else last.sequence, time, who, why, market, parameter, before, value),
        sequence=1 if last is None else last.sequence + 1,
    )
    return Policy(_after(policy.switches, change), [*policy.changes, change])


def read_policy(path: Path) -> Policy:
    """The policy in a file; the standard one where there is none.

    Raises InputError for one that cannot be read, or whose changes do not lead to its switches.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Policy()
    except OSError as error:
        raise InputError(f"{path}: the margin policy cannot be read ({error.strerror})") from error
    try:
        policy = msgspec.json.decode(content, type=Policy)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: is no margin policy: {error}") from None
    switches = Switches()
    for number, change in enumerate(policy.changes, 1):
        known = _set_for(switches, change.market, change.parameter)
        if change.sequence != number or change.before != known:
            raise InputError(f"{path}: change {change.sequence} does not follow from those before it")
        switches = _after(switches, change)
    if switches != policy.switches:
        raise InputError(f"{path}: the switches are not what the changes lead to")
    return policy


def change_file(path: Path, wanted: Wanted, who: str, why: str, time: datetime) -> Change:
    """Change the policy in a file; raises InputError, and then the file is as it was."""
    with _alone(path):
        policy = changed(read_policy(path), wanted, who, why, time)
        fresh = path.with_name(f"{path.name}.new")
        try:
            with open(fresh, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(policy), indent=1))
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
            sync_folder(path.parent)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    return policy.changes[-1]


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Nobody else changes the file meanwhile."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(f"{lock}: cannot be written ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _set_for(switches: Switches, market: str | None, parameter: str) -> Value:
    """What is set: the venue's value, or the market's own, None where it has none."""
    if market is not None:
        return switches.markets.get(market, {}).get(parameter)
    return getattr(switches.venue, parameter, None)


def _after(switches: Switches, change: Change) -> Switches:
    """Switches after a change; every market is checked, since the venue's parameters are theirs too."""
    if change.market is None:
        found = Switches(_with(switches.venue, {change.parameter: change.after}), switches.markets)
    else:
        own = {**switches.markets.get(change.market, {}), change.parameter: change.after}
        if change.after is None:
            del own[change.parameter]
        markets = {**switches.markets, change.market: own}
        found = Switches(switches.venue, {name: each for name, each in markets.items() if each})
    for market in found.markets:
        found.of(market)
    return found


def _with(parameters: Parameters, values: Mapping[str, Value]) -> Parameters:
    """Parameters with other values; InputError where they cannot be."""
    try:
        return msgspec.convert({**msgspec.structs.asdict(parameters), **values}, Parameters)
    except msgspec.ValidationError as error:
        raise InputError(f"margin policy: {error}") from None


def _checked(change: Change, **values: Any) -> Change:
    """A change whose fields are what they may be; InputError if not."""
    try:
        return msgspec.convert({**msgspec.structs.asdict(change), **values}, Change)
    except msgspec.ValidationError as error:
        raise InputError(f"margin policy: {error}") from None
