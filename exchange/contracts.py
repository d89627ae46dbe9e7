"""Contract terms: what a market is, and the static margin that a position in it needs.

Margin is tiered by notional. Within tier k a position of notional N needs N*r_k - D_k, where the
deduction D_0 = 0 and D_k = D_(k-1) + floor_k*(r_k - r_(k-1)) makes the requirement continuous: each
extra dollar pays the rate of the tier that it falls in (Hyperliquid "Margin tiers", Binance
"maintenance amount").
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Real
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from exchange.compiled import lean
from exchange.errors import InputError

MAX_TIERS = 32
"""Length of the arrays that hold a schedule; venues publish at most about a dozen tiers."""

FloatArray = npt.NDArray[np.float64]


class TierArrays(NamedTuple):
    """A margin schedule as flat numbers, the form that compiled code takes.

    Each is float64[MAX_TIERS], or float64[markets, MAX_TIERS] where many schedules are kept together.
    `floor_usd` is where a tier begins (0 first, +inf beyond the last tier); the other columns repeat
    the last tier there, so that they hold no value that was not given.
    """

    floor_usd: FloatArray
    initial_rate: FloatArray
    maintenance_rate: FloatArray
    initial_deduction_usd: FloatArray
    maintenance_deduction_usd: FloatArray


@lean
def tiered_margin_usd(
    notional_usd: float, floor_usd: FloatArray, rate: FloatArray, deduction_usd: FloatArray
) -> float:
    """Margin in dollars that a notional of either sign needs: |N|*r_k - D_k in the tier k that holds |N|.

    Continuous and non-decreasing in |N|; zero at zero. NaN where the notional or the rate is NaN.
    Arrays as in `TierArrays`, one market.
    """
    notional = abs(notional_usd)
    tier = 0
    while tier + 1 < floor_usd.shape[0] and floor_usd[tier + 1] <= notional:
        tier += 1
    return float(notional * rate[tier] - deduction_usd[tier])


@lean
def tier_deduction_usd(
    previous_deduction_usd: float, floor_usd: float, previous_rate: float, rate: float
) -> float:
    """Deduction of a tier from that of the tier before it: what keeps the margin whole at the edge."""
    return previous_deduction_usd + floor_usd * (rate - previous_rate)


def checked_number(
    what: str, value: object, low: float = -math.inf, high: float = math.inf, *, above: bool = False
) -> float:
    """`value` as a finite float in [low, high], or in (low, high] with `above`.

    Raises InputError that names `what` and quotes the value.
    """
    number = math.nan
    if type(value) is float:  # first, since the check of an abstract class takes longer than all else here
        number = value
    elif type(value) is not bool and isinstance(value, Real):  # True as a price is a mistake
        number = float(value)
    if math.isfinite(number) and low <= number <= high and not (above and number == low):
        return number
    bound = ""
    if above and low > -math.inf:
        bound = f" above {low:g}"
    elif low > -math.inf:
        bound = f" of at least {low:g}"
    if high < math.inf:
        bound += f"{' and' if bound else ''} of at most {high:g}"
    raise InputError(f"{what} must be a finite number{bound}, not {value!r}")


@dataclass(frozen=True)
class MarginTier:
    """Rates in force up to a notional: fractions, maintenance no higher than initial.

    `notional_cap_usd` is where the tier ends, `math.inf` for no end.
    """

    notional_cap_usd: float
    initial_margin_rate: float
    maintenance_margin_rate: float


def tier_arrays(tiers: Iterable[MarginTier]) -> TierArrays:
    """The schedule of one market as flat arrays.

    Tiers come in rising order of cap; neither rate may fall from one tier to the next, since a larger
    position is never safer. Beyond the last cap the last tier's rates go on. Raises InputError for no
    tiers, more than MAX_TIERS, caps or rates out of order, maintenance above initial, and numbers that
    are negative or not finite (a cap may be infinite in the last tier only).
    """
    schedule = tuple(tiers)
    if not 1 <= len(schedule) <= MAX_TIERS:
        raise InputError(f"tiers must be 1 to {MAX_TIERS}, not {len(schedule)}")
    floor_usd = np.full(MAX_TIERS, math.inf)
    columns = TierArrays(floor_usd, *(np.empty(MAX_TIERS) for _ in range(4)))
    start_usd = initial = maintenance = initial_deduction = maintenance_deduction = 0.0
    for number, tier in enumerate(schedule):
        where = f"tier {number}"
        if not start_usd < math.inf:
            raise InputError(f"{where}: the tier before it has no notional_cap_usd, so it is never reached")
        next_initial = checked_number(f"{where}: initial_margin_rate", tier.initial_margin_rate, 0.0)
        next_maintenance = checked_number(
            f"{where}: maintenance_margin_rate", tier.maintenance_margin_rate, 0.0
        )
        if next_maintenance > next_initial:
            raise InputError(
                f"{where}: maintenance_margin_rate {next_maintenance!r} is above "
                f"initial_margin_rate {next_initial!r}"
            )
        if next_initial < initial or next_maintenance < maintenance:
            raise InputError(
                f"{where}: margin rates {next_initial!r}, {next_maintenance!r} fall below those of the "
                f"tier before it, {initial!r}, {maintenance!r}"
            )
        initial_deduction = tier_deduction_usd(initial_deduction, start_usd, initial, next_initial)
        maintenance_deduction = tier_deduction_usd(
            maintenance_deduction, start_usd, maintenance, next_maintenance
        )
        initial, maintenance = next_initial, next_maintenance
        columns.floor_usd[number] = start_usd
        # to the end, so that what lies beyond the last tier repeats it
        columns.initial_rate[number:] = initial
        columns.maintenance_rate[number:] = maintenance
        columns.initial_deduction_usd[number:] = initial_deduction
        columns.maintenance_deduction_usd[number:] = maintenance_deduction
        cap_usd = tier.notional_cap_usd
        if cap_usd != math.inf:
            cap_usd = checked_number(f"{where}: notional_cap_usd", cap_usd, 0.0, above=True)
        if not cap_usd > start_usd:
            raise InputError(
                f"{where}: notional_cap_usd {cap_usd!r} is not above that of the tier before it, "
                f"{start_usd!r}"
            )
        start_usd = cap_usd
    return columns


@dataclass(frozen=True)
class Market:
    """Contract terms of one perpetual, in force together.

    `tick_size` in dollars and `lot_size` in base units are the steps of price and quantity; fee rates are
    fractions of the notional traded (a negative taker fee is a rebate); `funding_interval_s` in seconds.
    Raises InputError for values out of range and for tiers that `tier_arrays` refuses.
    """

    market: str
    tick_size: float
    lot_size: float
    taker_fee_rate: float
    liquidation_fee_rate: float
    funding_interval_s: float
    tiers: tuple[MarginTier, ...]
    schedule: TierArrays = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.market, str) or not self.market:
            raise InputError(f"market must be a name, not {self.market!r}")
        try:
            checked_number("tick_size", self.tick_size, 0.0, above=True)
            checked_number("lot_size", self.lot_size, 0.0, above=True)
            checked_number("taker_fee_rate", self.taker_fee_rate, -1.0, 1.0)
            checked_number("liquidation_fee_rate", self.liquidation_fee_rate, 0.0, 1.0)
            checked_number("funding_interval_s", self.funding_interval_s, 0.0, above=True)
            object.__setattr__(self, "tiers", tuple(self.tiers))
            object.__setattr__(self, "schedule", tier_arrays(self.tiers))
        except InputError as problem:
            raise InputError(f"market {self.market}: {problem}") from None

    def initial_margin_usd(self, notional_usd: float) -> float:
        """Static initial margin in dollars of a notional of either sign: what opening it takes."""
        tiers = self.schedule
        return tiered_margin_usd(
            float(notional_usd), tiers.floor_usd, tiers.initial_rate, tiers.initial_deduction_usd
        )

    def maintenance_margin_usd(self, notional_usd: float) -> float:
        """Static maintenance margin in dollars of a notional of either sign: below it comes liquidation."""
        tiers = self.schedule
        return tiered_margin_usd(
            float(notional_usd), tiers.floor_usd, tiers.maintenance_rate, tiers.maintenance_deduction_usd
        )
