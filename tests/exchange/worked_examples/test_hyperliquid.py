"""Hyperliquid. Its documents print few numbers: all but the funding example are worked by hand from them.

Sources, all hyperliquid.gitbook.io/hyperliquid-docs/trading
- "Funding" (the example's numbers also at cortex-vigil.com/wiki/funding-rates)
- "Liquidations": formula, partial liquidations, backstop at 2/3 of maintenance margin
- "Auto-deleveraging": (mark_price / entry_price) * (notional_position / account_value)
- "Robust price indices": the mark
"""

from __future__ import annotations

import math

import pytest

from exchange import deleveraging, funding, liquidation
from exchange.mark import oracle_mark
from exchange.rules import HYPERLIQUID, bankruptcy_price_of, liquidation_price_of, margin_of
from tests.exchange.worked_examples.examples import cents, tiered

BTC = tiered((150e6, 40, 1.25), (math.inf, 20, 2.5))


def test_funding_of_a_long_of_ten_bitcoin() -> None:
    """Impact bid 10,100 over a spot of 10,000: premium 1%, pull -0.05%, 8-hour rate 0.95%. An hour's eighth
    of it on 10 x 10,000 is $118.75 (by hand)."""
    premium = funding.premium_rate(10_000.0, 10_100.0, 10_110.0)
    assert premium == pytest.approx(0.01)
    assert funding.funding_rate(premium, 0.0001, 0.0005, math.inf, 1.0) == pytest.approx(0.0095)
    hourly = funding.rate_by_rule(HYPERLIQUID.funding, premium, 0.025, 0.0125)
    assert funding.funding_payment_usd(10.0, 10_000.0, hourly) == cents(118.75)


def test_funding_without_a_premium_is_an_eighth_of_the_interest() -> None:
    """0.01% every 8 hours is 0.00125% every hour; 4% an hour is the most."""
    assert funding.rate_by_rule(HYPERLIQUID.funding, 0.0, 0.1, 0.05) == pytest.approx(0.0000125)
    assert funding.rate_by_rule(HYPERLIQUID.funding, -0.9, 0.1, 0.05) == pytest.approx(-0.04)


def test_maintenance_of_two_hundred_million_in_bitcoin() -> None:
    """150M x 1.25% + 50M x 2.5% = 3,125,000: 200M x 2.5% less a deduction of 1,875,000."""
    need = margin_of(BTC, 2_000.0, 100_000.0, HYPERLIQUID)
    assert need.maintenance_usd == cents(3_125_000)
    assert need.initial_usd == cents(150e6 / 40 + 50e6 / 20)


def test_liquidation_price_by_the_documents_formula() -> None:
    """price - side x margin_available / position_size / (1 - l x side), l of the tier at that price."""
    for side in (1.0, -1.0):
        collateral = 20_000.0
        available = collateral - 0.0125 * 300_000.0
        by_formula = 100_000.0 - side * available / 3.0 / (1 - 0.0125 * side)
        price = liquidation_price_of(BTC, side * 3.0, 100_000.0, collateral, HYPERLIQUID)
        assert price == cents(by_formula)


def test_liquidation_price_takes_the_tier_of_its_own_notional() -> None:
    """Long 2,000 BTC at 100,000 on 60M: at the price 2,000 p is in the first tier, where
    60M + 2,000 (p - 100,000) = 1.25% x 2,000 p, so p = 140M / 1,975 = 70,886.08."""
    price = liquidation_price_of(BTC, 2_000.0, 100_000.0, 60e6, HYPERLIQUID)
    assert price == cents(70_886.08)
    assert 2_000 * price < 150e6


def test_bankruptcy_lies_beyond_liquidation_and_the_backstop_between() -> None:
    """Long 1 BTC at 100,000 on 5,000: bankrupt at 95,000, liquidated at 95,000 / 0.9875 = 96,202.53; two
    thirds of 1.25% are left at 95,000 / (1 - 0.0125 x 2 / 3) = 95,798.32."""
    assert bankruptcy_price_of(BTC, 1.0, 100_000.0, 5_000.0, HYPERLIQUID) == cents(95_000)
    assert liquidation_price_of(BTC, 1.0, 100_000.0, 5_000.0, HYPERLIQUID) == cents(96_202.53)
    for price, taken_over in ((95_798.33, False), (95_798.31, True)):
        collateral = 5_000 + (price - 100_000)
        assert liquidation.must_liquidate(collateral, 0.0125 * price, HYPERLIQUID.liquidation)
        assert liquidation.goes_to_backstop(collateral, 0.0125 * price, HYPERLIQUID.liquidation) is taken_over


def test_a_position_of_a_million_goes_a_fifth_first() -> None:
    assert liquidation.step_notional_usd(1e6, 1e6, 0, HYPERLIQUID.liquidation) == cents(200_000)
    assert liquidation.step_notional_usd(800_000.0, 1e6, 1, HYPERLIQUID.liquidation, 5.0) == cents(800_000)


def test_deleveraging_index() -> None:
    """Long 2 at 50,000, mark 60,000, account value 30,000: 60/50 x 120,000/30,000 = 4.8; a short of the same
    notional and account that gained as much, entered at 72,000: 72/60 x 4 = 4.8."""
    ranking = HYPERLIQUID.deleveraging_rank
    for quantity, entry in ((2.0, 50_000.0), (-2.0, 72_000.0)):
        index = deleveraging.rank(
            ranking, quantity, entry, 60_000.0, 30_000.0, 10_000.0, 1_500.0, 120_000.0, math.nan, 0.0
        )
        assert index == pytest.approx(4.8)
    price = deleveraging.deleverage_price(HYPERLIQUID.deleveraging_price, 1.0, 2.0, 3.0)
    assert price == 3.0


def test_mark_is_the_median_of_oracle_book_and_other_venues() -> None:
    assert oracle_mark(100.0, 0.4, 100.6, 100.7, 100.9, 100.5) == pytest.approx(100.5)
    assert oracle_mark(100.0, 0.4, 100.6, 100.7, 100.9, 99.0) == pytest.approx(100.4)
    assert oracle_mark(100.0, 0.4, 100.2, 100.3, 100.9, 102.0) == pytest.approx(100.4)
