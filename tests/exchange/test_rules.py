from __future__ import annotations

import math
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from exchange import deleveraging, margin, rules
from exchange.contracts import MarginTier, Market
from exchange.rules import VenueRules, bankruptcy_price_of, liquidation_price_of, margin_of
from tests.exchange.strategies import FLAT, KNOWN, law, maintenance_tiers, prices, signed
from tests.oracle import exchange_oracle as oracle

every_venue = pytest.mark.parametrize("venue", rules.VENUES, ids=lambda venue: venue.venue)
venues = st.sampled_from(rules.VENUES)
THREE = (MarginTier(2e4, 0.1, 0.05), MarginTier(1e5, 0.2, 0.1), MarginTier(math.inf, 1 / 3, 1 / 6))


def market_of(tiers: tuple[MarginTier, ...], fee: float = 0.0) -> Market:
    return Market("X", 0.01, 1e-9, fee, 0.0, 3_600, tiers)


def rate_at(notional: float, tiers: tuple[MarginTier, ...]) -> float:
    """Rate of the tier that holds a notional, its cap included."""
    return next(
        (tier for tier in tiers if notional <= tier.notional_cap_usd), tiers[-1]
    ).maintenance_margin_rate


def what_is_wanted(
    venue: VenueRules, market: Market, size: float, entry: float, mark: float, price: float, reserve: float
) -> float:
    """Maintenance margin and fee at a price, slow and obvious; `reserve` is the bankruptcy price."""
    at = entry if venue.maintenance_basis == "entry" else price
    if venue.deduction:
        wanted = float(oracle.margin(size * at, maintenance_tiers(market.tiers)))
    else:
        began = entry if venue.maintenance_basis == "entry" else mark  # the tier it is in stays its own
        wanted = size * at * rate_at(size * began, market.tiers)
    if venue.fee_in_trigger:
        wanted += market.taker_fee_rate * size * price
    if venue.fee_in_bankruptcy and not math.isnan(reserve):
        wanted += market.taker_fee_rate * size * reserve
    return wanted


# ---- liquidation price


@law
@given(
    venues, KNOWN, signed(1.0, 1e6), prices(), st.floats(0.8, 1.25), st.floats(0.0, 1.5),
    st.sampled_from((0.0, 0.0005, 0.002)), st.floats(0.0, 0.1),
)  # fmt: skip
@example(rules.OKX, THREE, 1e5, 1.0, 1.0, 0.3, 0.0005, 0.0)
@example(rules.BYBIT, THREE, -1e5, 1.0, 1.1, 0.3, 0.0005, 0.0)
def test_at_the_liquidation_price_there_is_just_what_the_venue_wants(
    venue: VenueRules,
    tiers: tuple[MarginTier, ...],
    notional: float,
    mark: float,
    entry_over: float,
    leverage_inverse: float,
    fee: float,
    others_share: float,
) -> None:
    market = market_of(tiers, fee)
    quantity, entry = notional / mark, mark * entry_over
    others = others_share * abs(notional)
    collateral = leverage_inverse * abs(notional)
    price = liquidation_price_of(
        market, quantity, mark, collateral, venue, entry_price=entry, others_maintenance_usd=others
    )
    assume(not math.isnan(price))
    assert price > 0.0
    there = collateral + quantity * (price - mark)
    reserve = margin.bankruptcy_price_with_fee(quantity, mark, collateral, fee)
    wanted = what_is_wanted(venue, market, abs(quantity), entry, mark, price, reserve) + others
    assert there == pytest.approx(wanted, abs=1e-7 * (abs(notional) + abs(quantity) * price))


@law
@given(venues, signed(1.0, 1e6), prices(), st.floats(0.12, 0.9), st.sampled_from((0.0, 0.0005)))
def test_there_is_a_liquidation_price_on_the_losing_side_before_bankruptcy(
    venue: VenueRules, notional: float, mark: float, share: float, fee: float
) -> None:
    """With more than maintenance margin and less than the whole value behind it, at entry."""
    market = market_of(FLAT, fee)
    quantity, collateral = notional / mark, share * abs(notional)
    liquidated = liquidation_price_of(market, quantity, mark, collateral, venue)
    bankrupt = bankruptcy_price_of(
        market, quantity, mark, collateral, replace(venue, bankruptcy_rounding="none")
    )
    if quantity > 0:
        assert bankrupt < liquidated < mark
    else:
        assert mark < liquidated < bankrupt


@law
@given(venues, signed(1.0, 1e6), prices(), st.floats(0.12, 0.9), st.floats(0.0, 0.05), st.floats(0.0, 0.05))
def test_a_dearer_close_or_other_positions_bring_liquidation_nearer(
    venue: VenueRules, notional: float, mark: float, share: float, more_fee: float, others: float
) -> None:
    quantity, collateral = notional / mark, share * abs(notional)

    def away(fee: float, others_share: float) -> float:
        price = liquidation_price_of(
            market_of(FLAT, fee),
            quantity,
            mark,
            collateral,
            venue,
            others_maintenance_usd=others_share * abs(notional),
        )
        return math.copysign(1.0, quantity) * (mark - price) / mark

    plain = away(0.0005, 0.0)
    assert away(0.0005 + more_fee, 0.0) <= plain + 1e-9
    assert away(0.0005, others) <= plain + 1e-9
    if venue.fee_in_trigger or venue.fee_in_bankruptcy:
        assert plain < away(0.0, 0.0)
    else:
        assert plain == away(0.0, 0.0)


@law
@given(KNOWN, signed(1.0, 1e6), prices(), st.floats(0.0, 1.5))
def test_hyperliquids_and_binances_price_is_that_of_the_margin_arithmetic(
    tiers: tuple[MarginTier, ...], notional: float, mark: float, share: float
) -> None:
    market = market_of(tiers, 0.001)
    quantity, collateral = notional / mark, share * abs(notional)
    schedule = market.schedule
    plain = margin.liquidation_price(
        quantity,
        mark,
        collateral - market.maintenance_margin_usd(quantity * mark),
        schedule.floor_usd,
        schedule.maintenance_rate,
        schedule.maintenance_deduction_usd,
    )
    for venue in (rules.HYPERLIQUID, rules.BINANCE, rules.DYDX):
        found = liquidation_price_of(market, quantity, mark, collateral, venue)
        assert found == pytest.approx(plain, nan_ok=True)


@law
@given(st.floats(10.0, 1e6), prices(), st.floats(0.12, 0.5), st.booleans())
def test_an_inverse_contract_is_a_linear_one_in_coin_per_dollar(
    dollars: float, mark: float, share: float, is_long: bool
) -> None:
    market = market_of(FLAT, 0.0005)
    quantity = dollars if is_long else -dollars
    coin = share * dollars / mark
    for venue in rules.VENUES:
        plain = replace(venue, bankruptcy_rounding="none")
        price = liquidation_price_of(market, quantity, mark, coin, plain, inverse=True)
        dual = liquidation_price_of(market, -quantity, 1 / mark, coin, plain)
        assert price == pytest.approx(1 / dual, nan_ok=True)
        bankrupt = bankruptcy_price_of(market, quantity, mark, coin, plain, inverse=True)
        assert bankrupt == pytest.approx(1 / bankruptcy_price_of(market, -quantity, 1 / mark, coin, plain))
        assert math.isnan(price) or (price < mark) == is_long


def test_without_a_position_there_is_no_price() -> None:
    market = market_of(FLAT)
    assert math.isnan(liquidation_price_of(market, 0.0, 10.0, 5.0, rules.BYBIT_UNIFIED))
    assert math.isnan(bankruptcy_price_of(market, 0.0, 10.0, 5.0, rules.BYBIT_UNIFIED))


# ---- bankruptcy price


@law
@given(signed(1.0, 1e6), prices(), st.floats(-0.5, 0.9), st.floats(0.0, 0.01))
def test_closing_at_the_bankruptcy_price_and_paying_the_fee_leaves_nothing(
    notional: float, mark: float, share: float, fee: float
) -> None:
    quantity, equity = notional / mark, share * abs(notional)
    price = margin.bankruptcy_price_with_fee(quantity, mark, equity, fee)
    assume(not math.isnan(price))
    left = equity + quantity * (price - mark) - fee * abs(quantity) * price
    assert left == pytest.approx(0.0, abs=1e-9 * abs(notional))
    if fee == 0.0:
        assert price == pytest.approx(margin.bankruptcy_price(quantity, mark, equity))


@law
@given(signed(1.0, 1e6), st.floats(1.0, 1e5), st.floats(-0.5, 0.9), st.sampled_from((0.5, 0.1, 0.01)))
def test_rounding_to_the_tick_never_leaves_the_account_owing(
    notional: float, mark: float, share: float, tick: float
) -> None:
    market = replace(market_of(FLAT), tick_size=tick)
    quantity, equity = notional / mark, share * abs(notional)
    exact = bankruptcy_price_of(market, quantity, mark, equity, rules.HYPERLIQUID)
    assume(exact > tick)
    rounded = bankruptcy_price_of(market, quantity, mark, equity, rules.BYBIT)
    assert abs(rounded - exact) < tick * (1 + 1e-6)
    assert rounded / tick == pytest.approx(round(rounded / tick), abs=1e-6)
    assert equity + quantity * (rounded - mark) >= -1e-6 * abs(notional)


@pytest.mark.parametrize(
    ("price", "tick", "down", "up"),
    [(7_735.37, 0.5, 7_735.0, 7_735.5), (0.3, 0.1, 0.3, 0.3), (3 * 0.1, 0.1, 0.3, 0.3), (7.0, 0.5, 7.0, 7.0)],
)
def test_a_price_that_is_a_tick_stays(price: float, tick: float, down: float, up: float) -> None:
    assert rules.rounded_to_tick(price, tick, up=False) == down
    assert rules.rounded_to_tick(price, tick, up=True) == up


@law
@given(signed(1e-6, 1e4), st.floats(0.01, 1e5))
def test_cash_rounds_up_to_the_quantum_for_the_account(quantity: float, price: float) -> None:
    cash = rules.bankruptcy_cash_usd(quantity, price, rules.DYDX)
    more = float(Fraction(cash) - Fraction(quantity) * Fraction(price))
    noise = 1e-9 + 1e-15 * abs(cash)
    assert -noise <= more <= 1e-6 + noise
    assert cash == round(cash, 6)
    assert rules.bankruptcy_cash_usd(quantity, price, rules.HYPERLIQUID) == quantity * price


def test_whole_quanta_are_not_rounded() -> None:
    for quanta in (1, 999_999, 4_501_000_000, 123_456_789_012):
        assert rules.bankruptcy_cash_usd(quanta / 1e6, 1.0, rules.DYDX) == pytest.approx(
            quanta / 1e6, abs=1e-9
        )
        assert rules.bankruptcy_cash_usd(quanta / 1e7, 10.0, rules.DYDX) == pytest.approx(
            quanta / 1e6, abs=1e-9
        )


# ---- margin


@law
@given(venues, KNOWN, signed(1.0, 1e8), prices(), st.floats(0.8, 1.25))
def test_maintenance_is_on_the_value_and_by_the_tiers_that_the_venue_says(
    venue: VenueRules, tiers: tuple[MarginTier, ...], notional: float, mark: float, entry_over: float
) -> None:
    market = market_of(tiers, 0.0005)
    quantity, entry = notional / mark, mark * entry_over
    need = margin_of(market, quantity, mark, venue, entry_price=entry)
    basis = abs(quantity) * (entry if venue.maintenance_basis == "entry" else mark)
    if venue.deduction:
        assert need.maintenance_usd == pytest.approx(float(oracle.margin(basis, maintenance_tiers(tiers))))
    else:
        assert need.maintenance_usd == pytest.approx(basis * rate_at(basis, tiers))
    assert need.maintenance_usd <= need.initial_usd or entry_over < 1.0
    assert (need.closing_fee_usd > 0.0) == (venue.fee_in_trigger or venue.fee_in_bankruptcy)


@law
@given(st.sampled_from((rules.BYBIT_UNIFIED, rules.BITMEX)), signed(1.0, 1e6), prices(), st.integers(2, 20))
def test_a_fee_set_aside_is_what_closing_at_the_bankruptcy_price_costs(
    venue: VenueRules, notional: float, mark: float, leverage: int
) -> None:
    market = market_of(FLAT, 0.0005)
    quantity = notional / mark
    need = margin_of(market, quantity, mark, venue, leverage=leverage)
    assert need.initial_usd == pytest.approx(abs(notional) / leverage)
    exact = replace(venue, bankruptcy_rounding="none")
    collateral = need.initial_usd + need.closing_fee_usd
    bankrupt = bankruptcy_price_of(market, quantity, mark, collateral, exact)
    side = math.copysign(1.0, quantity)
    assert bankrupt == pytest.approx(mark * (1 - side / leverage))
    assert need.closing_fee_usd == pytest.approx(0.0005 * abs(quantity) * bankrupt)


def test_the_edge_of_a_tier_belongs_to_the_lower_one() -> None:
    market = market_of(THREE)
    assert margin_of(market, 2e4, 1.0, rules.OKX).maintenance_usd == pytest.approx(1_000.0)
    assert margin_of(market, 2e4 + 1, 1.0, rules.OKX).maintenance_usd == pytest.approx(2_000.1)
    assert margin_of(market, 2e4 + 1, 1.0, rules.BINANCE).maintenance_usd == pytest.approx(1_000.1)


# ---- the venues


def test_venues_differ_as_their_documents_do() -> None:
    by_name = {venue.venue: venue for venue in rules.VENUES}
    assert len(by_name) == len(rules.VENUES)

    def those(test: object) -> set[str]:
        return {name for name, venue in by_name.items() if test(venue)}  # type: ignore[operator]

    assert those(lambda v: v.maintenance_basis == "entry") == {"Bybit", "BitMEX"}
    assert those(lambda v: v.fee_in_trigger) == {"OKX", "Gate", "Phemex"}
    assert those(lambda v: not v.at_equality) == {"Hyperliquid", "dYdX v4", "Drift v2", "Paradex"}
    assert those(lambda v: v.bankruptcy_rounding == "quantum") == {"dYdX v4"}
    assert those(lambda v: v.deleveraging_price == deleveraging.AT_PREVIOUS_ORACLE) == {"Hyperliquid"}
    assert those(lambda v: v.deleveraging_rank == deleveraging.RANDOM) == {"dYdX v4"}


@every_venue
def test_shares_and_rates_of_every_venue_are_in_range(venue: VenueRules) -> None:
    rule, paid = venue.liquidation, venue.funding
    assert 0.0 <= rule.first_share <= 1.0 and 0.0 < rule.step_share <= 1.0
    assert 0.0 <= rule.backstop_share < 1.0 and rule.safety_share >= 0.0
    assert rule.cooldown_s >= 0.0 and rule.penalty_rate_cap >= 0.0
    assert 0.0 < paid.share <= 1.0 and paid.base_interval_s * paid.share >= 3_600.0
    assert paid.clamp >= 0.0 and paid.cap_rate > 0.0 and 0.0 < venue.fund_trigger <= 1.0


# ---- docs/venue_rules.md

TABLE = (Path(__file__).parents[2] / "docs" / "venue_rules.md").read_text()
RANKINGS = {getattr(deleveraging, name): name for name in (
    "BITMEX", "HYPERLIQUID", "BINANCE", "RANDOM", "PRO_RATA", "PROFIT_LEVERAGE",
)}  # fmt: skip
PRICES = {getattr(deleveraging, name): name for name in ("AT_BANKRUPTCY", "AT_MARK", "AT_PREVIOUS_ORACLE")}


def as_written(rule: str, value: object) -> str:
    if rule == "deleveraging_rank":
        return RANKINGS[value]
    if rule == "deleveraging_price":
        return PRICES[value]
    return str(value) if isinstance(value, (bool, str)) else f"{value:.10g}"


def values_of(venue: VenueRules) -> dict[str, str]:
    values = {name: value for name, value in vars(venue).items() if name != "venue"}
    for group in ("liquidation", "funding"):
        record = values.pop(group)
        values |= {f"{group}.{name}": value for name, value in record._asdict().items()}
    return {rule: as_written(rule, value) for rule, value in values.items()}


def test_the_document_gives_every_rule_of_every_venue_with_its_source() -> None:
    """Where this fails, docs/venue_rules.md says something else than exchange/rules.py."""
    sources = set(re.findall(r"^\| ([A-Z]\d) \|", TABLE, re.MULTILINE))
    written: dict[str, dict[str, str]] = {venue.venue: {} for venue in rules.VENUES}
    for rule, value, names, source in re.findall(
        r"^\| `([\w.]+)` \| `([\w.]+)` \| ([^|]+) \| ([^|]+) \|$", TABLE, re.MULTILINE
    ):
        keys = set(re.findall(r"\b[A-Z]\d\b", source))
        assert keys <= sources, f"{rule}: no document under {keys - sources}"
        assert keys or "assumed" in source or "by market" in source, f"{rule}: no source"
        for name in names.split(", "):
            assert rule not in written[name], f"{rule} of {name} stands twice"
            written[name][rule] = value
    for venue in rules.VENUES:
        assert written[venue.venue] == values_of(venue)
