"""Where venues differ: each rule a field, each venue a value, and the prices that follow from them.

The formulas are those of `exchange.margin`; what stands here says which of them a venue uses. Sources of
every value in docs/venue_rules.md, examples from the venues' documents in tests/exchange/worked_examples.

An inverse contract (margined in coin, quoted in dollars) is a linear one in 1/price with the other sign:
with `inverse` quantities are in dollars (contracts), money in coin, and prices in dollars as quoted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from exchange import deleveraging, liquidation
from exchange.contracts import FloatArray, Market, tiered_margin_usd
from exchange.funding import FundingRule
from exchange.liquidation import LiquidationRule
from exchange.margin import bankruptcy_price_with_fee, liquidation_price_with_fee
from exchange.units import HOUR_S

QUANTA = 1_000_000
"""Smallest amounts of money (quote quanta) in a dollar on dYdX v4."""

HOURLY_EIGHTH = FundingRule(
    base_interval_s=8 * HOUR_S,
    share=1 / 8,
    interest_rate=0.0001,
    clamp=0.0005,
    adds_interest=0,
    cap_rate=0.32,
    cap_times_gap=0.0,
    cap_times_maintenance=0.0,
    at_oracle=1,
)
"""Hyperliquid: an eighth of the 8-hour rate every hour, at most 4% of the oracle value an hour."""

EIGHT_HOURLY = HOURLY_EIGHTH._replace(share=1.0, cap_rate=math.inf, at_oracle=0)
"""The usual rule: interest of 0.01%, a pull of at most 0.05%, paid whole every 8 hours on the mark."""


@dataclass(frozen=True)
class VenueRules:
    """The choices of one venue."""

    venue: str
    maintenance_basis: Literal["mark", "entry"]
    """Maintenance margin is on the position's value at mark, or on its value at entry."""
    deduction: bool
    """True: tiers add up, N r_k - D_k; False: the rate of the position's tier is on all of it."""
    fee_in_trigger: bool
    """The taker fee for closing at mark is wanted on top of maintenance margin."""
    fee_in_bankruptcy: bool
    """The taker fee for closing at the bankruptcy price is set aside: it is part of the initial margin, on
    top of maintenance margin, and the bankruptcy price leaves room for it."""
    bankruptcy_rounding: Literal["none", "tick", "quantum"]
    """Bankruptcy rounds up for the account, so that it is never left owing: "tick" a long's price up to the
    tick and a short's down; "quantum" the money that closing must bring, up to a millionth of a dollar."""
    liquidation: LiquidationRule
    funding: FundingRule
    fund_trigger: float
    """Fall of the insurance fund from its recent peak at which it counts as spent; 1: only when empty."""
    deleveraging_rank: int
    deleveraging_price: int

    @property
    def at_equality(self) -> bool:
        """Whether collateral that equals maintenance margin is liquidated."""
        return self.liquidation.at_equality != 0


BINANCE = VenueRules(
    venue="Binance",
    maintenance_basis="mark",
    deduction=True,
    fee_in_trigger=False,
    fee_in_bankruptcy=False,
    bankruptcy_rounding="none",
    liquidation=liquidation.BINANCE,
    funding=EIGHT_HOURLY._replace(cap_times_maintenance=0.75),
    fund_trigger=1.0,
    deleveraging_rank=deleveraging.PROFIT_LEVERAGE,
    deleveraging_price=deleveraging.AT_BANKRUPTCY,
)
BYBIT = VenueRules(
    venue="Bybit",
    maintenance_basis="entry",
    deduction=True,
    fee_in_trigger=False,
    fee_in_bankruptcy=False,
    bankruptcy_rounding="tick",
    liquidation=liquidation.WHOLE,
    funding=EIGHT_HOURLY,
    fund_trigger=1.0,
    deleveraging_rank=deleveraging.BITMEX,
    deleveraging_price=deleveraging.AT_BANKRUPTCY,
)
"""Bybit's contracts as its help centre explained them to 2025: maintenance margin on the entry value."""
BYBIT_UNIFIED = VenueRules(
    venue="Bybit unified account",
    maintenance_basis="mark",
    deduction=True,
    fee_in_trigger=False,
    fee_in_bankruptcy=True,
    bankruptcy_rounding="tick",
    liquidation=liquidation.WHOLE,
    funding=EIGHT_HOURLY,
    fund_trigger=0.3,
    deleveraging_rank=deleveraging.BITMEX,
    deleveraging_price=deleveraging.AT_BANKRUPTCY,
)
"""Bybit's unified account since 2026: maintenance margin at mark, the fee for closing set aside."""
OKX = VenueRules(
    venue="OKX",
    maintenance_basis="mark",
    deduction=False,
    fee_in_trigger=True,
    fee_in_bankruptcy=False,
    bankruptcy_rounding="none",
    liquidation=liquidation.WHOLE,
    funding=EIGHT_HOURLY,
    fund_trigger=0.3,
    deleveraging_rank=deleveraging.PROFIT_LEVERAGE,
    deleveraging_price=deleveraging.AT_MARK,
)
GATE = VenueRules(
    venue="Gate",
    maintenance_basis="mark",
    deduction=False,
    fee_in_trigger=True,
    fee_in_bankruptcy=False,
    bankruptcy_rounding="none",
    liquidation=liquidation.WHOLE,
    funding=EIGHT_HOURLY,
    fund_trigger=1.0,
    deleveraging_rank=deleveraging.PROFIT_LEVERAGE,
    deleveraging_price=deleveraging.AT_BANKRUPTCY,
)
HYPERLIQUID = VenueRules(
    venue="Hyperliquid",
    maintenance_basis="mark",
    deduction=True,
    fee_in_trigger=False,
    fee_in_bankruptcy=False,
    bankruptcy_rounding="none",
    liquidation=liquidation.HYPERLIQUID,
    funding=HOURLY_EIGHTH,
    fund_trigger=1.0,
    deleveraging_rank=deleveraging.HYPERLIQUID,
    deleveraging_price=deleveraging.AT_PREVIOUS_ORACLE,
)
DYDX = VenueRules(
    venue="dYdX v4",
    maintenance_basis="mark",
    deduction=True,
    fee_in_trigger=False,
    fee_in_bankruptcy=False,
    bankruptcy_rounding="quantum",
    liquidation=liquidation.DYDX,
    funding=HOURLY_EIGHTH._replace(
        interest_rate=0.0, clamp=0.0, adds_interest=1, cap_rate=math.inf, cap_times_gap=6.0
    ),
    fund_trigger=1.0,
    deleveraging_rank=deleveraging.RANDOM,
    deleveraging_price=deleveraging.AT_BANKRUPTCY,
)
DRIFT = VenueRules(
    venue="Drift v2",
    maintenance_basis="mark",
    deduction=True,
    fee_in_trigger=False,
    fee_in_bankruptcy=False,
    bankruptcy_rounding="none",
    liquidation=liquidation.DRIFT,
    funding=HOURLY_EIGHTH._replace(
        base_interval_s=24 * HOUR_S,
        share=1 / 24,
        interest_rate=0.0,
        clamp=0.0,
        adds_interest=1,
        cap_rate=0.03,
    ),
    fund_trigger=1.0,
    deleveraging_rank=deleveraging.PRO_RATA,
    deleveraging_price=deleveraging.AT_BANKRUPTCY,
)
PARADEX = VenueRules(
    venue="Paradex",
    maintenance_basis="mark",
    deduction=True,
    fee_in_trigger=False,
    fee_in_bankruptcy=False,
    bankruptcy_rounding="none",
    liquidation=liquidation.PARADEX,
    funding=EIGHT_HOURLY._replace(cap_rate=0.05, at_oracle=1),
    fund_trigger=1.0,
    deleveraging_rank=deleveraging.PRO_RATA,
    deleveraging_price=deleveraging.AT_MARK,
)
BITMEX = VenueRules(
    venue="BitMEX",
    maintenance_basis="entry",
    deduction=False,
    fee_in_trigger=False,
    fee_in_bankruptcy=True,
    bankruptcy_rounding="tick",
    liquidation=liquidation.WHOLE,
    funding=EIGHT_HOURLY._replace(cap_times_gap=0.75),
    fund_trigger=1.0,
    deleveraging_rank=deleveraging.BITMEX,
    deleveraging_price=deleveraging.AT_BANKRUPTCY,
)
PHEMEX = VenueRules(
    venue="Phemex",
    maintenance_basis="mark",
    deduction=True,
    fee_in_trigger=True,
    fee_in_bankruptcy=False,
    bankruptcy_rounding="none",
    liquidation=liquidation.WHOLE,
    funding=EIGHT_HOURLY,
    fund_trigger=1.0,
    deleveraging_rank=deleveraging.BITMEX,
    deleveraging_price=deleveraging.AT_BANKRUPTCY,
)

VENUES = (
    BINANCE, BYBIT, BYBIT_UNIFIED, OKX, GATE, PHEMEX, HYPERLIQUID, DYDX, DRIFT, PARADEX, BITMEX,
)  # fmt: skip


class Requirement(NamedTuple):
    """What one position needs, in dollars (coin if inverse)."""

    initial_usd: float
    maintenance_usd: float
    closing_fee_usd: float
    """The fee for closing that the venue wants on top of maintenance margin; counted in neither."""


def margin_of(
    market: Market,
    quantity: float,
    mark: float,
    rules: VenueRules,
    *,
    entry_price: float = math.nan,
    leverage: float = math.nan,
    inverse: bool = False,
) -> Requirement:
    """Initial margin, maintenance margin and fee for closing that a position needs on a venue.

    `entry_price` is taken for the mark where it is not given, `leverage` for the greatest that the tier
    allows. The initial margin is on the entry value, without the fee.
    """
    quantity, mark, entry = _linear(quantity, mark, entry_price, inverse)
    tiers = market.schedule
    entry_notional = abs(quantity) * entry
    initial = entry_notional / leverage
    if math.isnan(leverage):
        initial = _by_tier(entry_notional, tiers.initial_rate, tiers.initial_deduction_usd, market, rules)
    fee = 0.0
    if rules.fee_in_trigger:
        fee = market.taker_fee_rate * abs(quantity) * mark
    elif rules.fee_in_bankruptcy:
        # set aside at the price at which the initial margin is gone
        fee = market.taker_fee_rate * abs(quantity * entry - initial)
    return Requirement(initial, _maintenance(market, quantity, mark, entry, rules), fee)


def liquidation_price_of(
    market: Market,
    quantity: float,
    mark: float,
    collateral_usd: float,
    rules: VenueRules,
    *,
    entry_price: float = math.nan,
    others_maintenance_usd: float = 0.0,
    inverse: bool = False,
) -> float:
    """Price of this market at which a venue begins to close the position, all else unchanged.

    `collateral_usd` is that of the position's pool at `mark`, its own unrealised profit included (isolated
    and at entry: the position's margin, with the fee set aside where there is one); `others_maintenance_usd`
    what the pool's other positions need. NaN where there is no such price above zero.
    """
    quantity, mark, entry = _linear(quantity, mark, entry_price, inverse)
    buffer_usd = collateral_usd - others_maintenance_usd - _maintenance(market, quantity, mark, entry, rules)
    if rules.fee_in_bankruptcy:
        bankruptcy = bankruptcy_price_with_fee(quantity, mark, collateral_usd, market.taker_fee_rate)
        if not math.isnan(bankruptcy):
            buffer_usd -= market.taker_fee_rate * abs(quantity) * bankruptcy
    tiers = market.schedule
    if rules.maintenance_basis == "entry":
        floor, rate, deduction = _flat(0.0)
    elif rules.deduction:
        floor, rate, deduction = tiers.floor_usd, tiers.maintenance_rate, tiers.maintenance_deduction_usd
    else:
        floor, rate, deduction = _flat(_rate_of(abs(quantity) * mark, tiers.maintenance_rate, market))
    fee_rate = market.taker_fee_rate if rules.fee_in_trigger else 0.0
    price = liquidation_price_with_fee(quantity, mark, buffer_usd, floor, rate, deduction, fee_rate)
    return 1.0 / price if inverse else price


def bankruptcy_price_of(
    market: Market,
    quantity: float,
    mark: float,
    equity_share_usd: float,
    rules: VenueRules,
    *,
    inverse: bool = False,
) -> float:
    """Price at which a venue counts the equity behind a position as gone, rounded as the venue does.

    `equity_share_usd` is the pool's equity at `mark`, or the position's share of it in a cross account
    (`exchange.margin.bankruptcy_share_usd`). NaN where there is no such price above zero.
    """
    is_long = quantity > 0.0
    quantity, mark, _ = _linear(quantity, mark, math.nan, inverse)
    fee_rate = market.taker_fee_rate if rules.fee_in_bankruptcy else 0.0
    price = bankruptcy_price_with_fee(quantity, mark, float(equity_share_usd), fee_rate)
    price = 1.0 / price if inverse else price
    if rules.bankruptcy_rounding == "tick" and math.isfinite(price):
        return rounded_to_tick(price, market.tick_size, up=is_long)
    return price


def bankruptcy_cash_usd(quantity_closed: float, bankruptcy_price: float, rules: VenueRules) -> float:
    """Money that closing a signed quantity at its bankruptcy price brings (short: costs, negative), dollars.

    Rounded up to the millionth where the venue rounds to the quantum: a long must bring more, a short may
    cost less, and the account is never left owing.
    """
    cash_usd = quantity_closed * bankruptcy_price
    if rules.bankruptcy_rounding != "quantum":
        return cash_usd
    quanta = cash_usd * QUANTA
    # a whole number of quanta is that number although its double may be a hair above
    return math.ceil(quanta - max(1e-4, 4e-16 * abs(quanta))) / QUANTA


def rounded_to_tick(price: float, tick_size: float, *, up: bool) -> float:
    """The nearest multiple of the tick that is not below (or, if not `up`, not above) the price."""
    ticks = price / tick_size
    whole = math.ceil(ticks - 1e-9) if up else math.floor(ticks + 1e-9)
    # a multiple of 0.1 as the double that prints as one
    return round(whole * tick_size, 12)


def _linear(quantity: float, mark: float, entry_price: float, inverse: bool) -> tuple[float, float, float]:
    """Quantity, mark and entry of the linear contract that the position is one of."""
    entry = mark if math.isnan(entry_price) else entry_price
    if inverse:
        return -float(quantity), 1.0 / mark, 1.0 / entry
    return float(quantity), float(mark), float(entry)


def _maintenance(market: Market, quantity: float, mark: float, entry: float, rules: VenueRules) -> float:
    notional = abs(quantity) * (entry if rules.maintenance_basis == "entry" else mark)
    tiers = market.schedule
    return _by_tier(notional, tiers.maintenance_rate, tiers.maintenance_deduction_usd, market, rules)


def _by_tier(
    notional: float, rate: FloatArray, deduction: FloatArray, market: Market, rules: VenueRules
) -> float:
    if rules.deduction:
        return tiered_margin_usd(notional, market.schedule.floor_usd, rate, deduction)
    return notional * _rate_of(notional, rate, market)


def _rate_of(notional: float, rate: FloatArray, market: Market) -> float:
    """Rate of the tier that holds a notional; the edge belongs to the lower tier, as caps are inclusive."""
    tier = int(np.searchsorted(market.schedule.floor_usd, notional, side="left")) - 1
    return float(rate[max(tier, 0)])


def _flat(rate: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """A schedule of one tier without end."""
    return np.array([0.0, math.inf]), np.full(2, rate), np.zeros(2)
