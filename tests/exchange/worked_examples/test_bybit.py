"""Bybit, as explained to 2025 (maintenance margin on the entry value) and since (unified account, at mark).

Sources
- "Liquidation Price (USDT Contract)", bybit.com/en-US/help-center/s/article/Liquidation-Price-USDT-Contract
- "Trading Rules: Liquidation Process (Unified Trading Account)",
  bybit.com/en/help-center/article/UTA-Trading-Rules
- "Bankruptcy Price (Perpetual and Expiry Contracts)",
  bybit.com/en/help-center/article/Bankruptcy-Price-Perpetual-and-Expiry-Contracts
- "Maintenance Margin (USDT Contract)", bybit.com/en/help-center/article/Maintenance-Margin-USDT-Contract
- "How to calculate Liquidation Price (Inverse Contract)", help.bybit.com/hc/en-us/articles/360039261334
- "What is Auto-Deleveraging (ADL)", help.bybit.com/hc/en-us/articles/900000031623
- "How to increase/decrease position margin",
  cryptoarmy.io/faq/how-to-increase-decrease-position-margin-on-bybit
- "Insurance Fund", bybit.com/en/help-center/article/Insurance-Fund
- "What is funding rate and predicted rate", help.bybit.com/hc/en-us/articles/360039261114
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from exchange import funding, insurance
from exchange.rules import (
    BYBIT,
    BYBIT_UNIFIED,
    bankruptcy_price_of,
    liquidation_price_of,
    margin_of,
    rounded_to_tick,
)
from tests.exchange.worked_examples.examples import cents, market, tiered

HALF_PERCENT = market(0.01, 0.005)
UNIFIED = market(0.01, 0.005, taker_fee_rate=0.00055)


def test_a_long_of_one_bitcoin_at_twenty_thousand_and_fifty_times() -> None:
    """Initial margin 400, maintenance 100, liquidation 20,000 - (400 - 100) = 19,700."""
    need = margin_of(HALF_PERCENT, 1.0, 20_000.0, BYBIT, leverage=50)
    assert (need.initial_usd, need.maintenance_usd) == (cents(400), cents(100))
    assert liquidation_price_of(HALF_PERCENT, 1.0, 20_000.0, 400.0, BYBIT) == cents(19_700)
    # the short: 20,000 + (400 - 100), worked by hand from the formula
    assert liquidation_price_of(HALF_PERCENT, -1.0, 20_000.0, 400.0, BYBIT) == cents(20_300)


def test_maintenance_margin_stays_that_of_the_entry_while_the_mark_moves() -> None:
    at_mark = margin_of(HALF_PERCENT, 1.0, 19_900.0, BYBIT, entry_price=20_000.0)
    assert at_mark.maintenance_usd == cents(100)
    price = liquidation_price_of(HALF_PERCENT, 1.0, 19_900.0, 300.0, BYBIT, entry_price=20_000.0)
    assert price == cents(19_700)


def test_margin_that_is_added_and_a_position_that_doubles() -> None:
    """Long 1 BTC at 10,000, liquidated at 9,500; 1,000 added: 8,500; another BTC at 10,000: 9,000."""
    margin = 500.0 + 50.0
    assert liquidation_price_of(HALF_PERCENT, 1.0, 10_000.0, margin, BYBIT) == cents(9_500)
    assert liquidation_price_of(HALF_PERCENT, 1.0, 10_000.0, margin + 1_000, BYBIT) == cents(8_500)
    assert liquidation_price_of(HALF_PERCENT, 2.0, 10_000.0, 2 * margin + 1_000, BYBIT) == cents(9_000)


def test_bankruptcy_prices_at_fifty_times() -> None:
    """60,000 x (1 - 1/50) = 58,800; 10,000 x (1 - 2%) = 9,800."""
    assert bankruptcy_price_of(HALF_PERCENT, 1.0, 60_000.0, 1_200.0, BYBIT) == cents(58_800)
    assert bankruptcy_price_of(HALF_PERCENT, 1.0, 10_000.0, 200.0, BYBIT) == cents(9_800)
    # the short, worked by hand from the formula: 60,000 x (1 + 1/50)
    assert bankruptcy_price_of(HALF_PERCENT, -1.0, 60_000.0, 1_200.0, BYBIT) == cents(61_200)


def test_margin_of_3_500_in_five_tiers() -> None:
    """1,000 x (2% + 2.5% + 3%) + 500 x 3.5% = 92.50: 3,500 x 3.5% less a deduction of 30."""
    five = tiered((1_000, 50, 2), (2_000, 40, 2.5), (3_000, 33, 3), (4_000, 28, 3.5), (5_000, 25, 4))
    assert margin_of(five, 100.0, 35.0, BYBIT).maintenance_usd == cents(92.50)
    assert five.schedule.maintenance_deduction_usd[3] == cents(30.0)


def test_unified_account_long_with_margin_added() -> None:
    """1 BTC at 40,000 and 50x, 3,000 added, taker fee 0.055%: fee to close 21.56, initial margin 821.56,
    maintenance margin 221.56, liquidation at 36,380.25."""
    need = margin_of(UNIFIED, 1.0, 40_000.0, BYBIT_UNIFIED, leverage=50)
    assert need.closing_fee_usd == cents(21.56)
    assert need.initial_usd + need.closing_fee_usd == cents(821.56)
    assert need.maintenance_usd + need.closing_fee_usd == cents(221.56)
    collateral = need.initial_usd + need.closing_fee_usd + 3_000.0
    assert liquidation_price_of(UNIFIED, 1.0, 40_000.0, collateral, BYBIT_UNIFIED) == cents(36_380.25)


def test_unified_account_by_the_documents_two_formulas() -> None:
    """Long [E q - E q / L - A / (1 - c) - D] / [q (1 - m)], short the mirror image: worked by hand."""
    entry, size, leverage, added, fee, rate = 40_000.0, 2.0, 20.0, 1_500.0, 0.00055, 0.005
    for side in (1.0, -1.0):
        need = margin_of(UNIFIED, side * size, entry, BYBIT_UNIFIED, leverage=leverage)
        collateral = need.initial_usd + need.closing_fee_usd + added
        by_formula = (entry * size - side * (entry * size / leverage) - side * added / (1 - side * fee)) / (
            size - side * size * rate
        )
        assert liquidation_price_of(UNIFIED, side * size, entry, collateral, BYBIT_UNIFIED) == cents(
            by_formula
        )


def test_unified_inverse_short() -> None:
    """30,000 USD at 60,000 and 10x: fee 247.5, initial margin 50,247.5, maintenance 2,747.5 millionths of a
    bitcoin; liquidation at 66,333.33."""
    need = margin_of(UNIFIED, -30_000.0, 60_000.0, BYBIT_UNIFIED, leverage=10, inverse=True)
    millionths = [
        1e6 * coin
        for coin in (
            need.closing_fee_usd,
            need.initial_usd + need.closing_fee_usd,
            need.maintenance_usd + need.closing_fee_usd,
        )
    ]
    assert millionths == [cents(247.5), cents(50_247.5), cents(2_747.5)]
    collateral = need.initial_usd + need.closing_fee_usd
    price = liquidation_price_of(UNIFIED, -30_000.0, 60_000.0, collateral, BYBIT_UNIFIED, inverse=True)
    assert price == cents(66_333.33)


def test_inverse_short_on_the_entry_value() -> None:
    """60,000 USD at 50,000 and 10x: value 1.2 BTC, initial margin 0.12; the page's formula gives
    60,000 / (1.2 - (0.12 - 0.006)), worked by hand."""
    need = margin_of(HALF_PERCENT, -60_000.0, 50_000.0, BYBIT, leverage=10, inverse=True)
    assert (need.initial_usd, need.maintenance_usd) == (pytest.approx(0.12), pytest.approx(0.006))
    price = liquidation_price_of(HALF_PERCENT, -60_000.0, 50_000.0, 0.12, BYBIT, inverse=True)
    assert price == cents(60_000 / 1.086)


def test_inverse_long_in_a_cross_account_with_the_fee_in_its_bankruptcy_price() -> None:
    """0.5 BTC and 10,000 USD long at 8,000, taker fee 0.075%: bankruptcy 5,718.57, liquidation 5,739.50."""
    rules = replace(BYBIT, fee_in_bankruptcy=True, bankruptcy_rounding="none")
    contract = market(0.01, 0.005, taker_fee_rate=0.00075, tick_size=0.5)
    assert bankruptcy_price_of(contract, 10_000.0, 8_000.0, 0.5, rules, inverse=True) == cents(5_718.57)
    price = liquidation_price_of(contract, 10_000.0, 8_000.0, 0.5, rules, inverse=True)
    assert rounded_to_tick(price, 0.5, up=True) == 5_739.5


def test_inverse_bankruptcy_price_rounds_to_the_tick() -> None:
    """5,000 USD long at 7,890.08 and 50x: 7,890.08 x 50 / 51 = 7,735.372549, closed at 7,735.50."""
    contract = market(0.01, 0.005, tick_size=0.5)
    margin = 5_000 / 7_890.08 / 50
    exact = bankruptcy_price_of(
        contract, 5_000.0, 7_890.08, margin, replace(BYBIT, bankruptcy_rounding="none"), inverse=True
    )
    assert exact == pytest.approx(7_735.372549, abs=1e-6)
    assert bankruptcy_price_of(contract, 5_000.0, 7_890.08, margin, BYBIT, inverse=True) == 7_735.5


def test_insurance_fund_of_a_long_liquidated_at_65_000() -> None:
    """Bankruptcy at 64,000: closed at 64,980 the fund gains 980, at 63,950 it pays 50 (for 1 BTC)."""
    penalty = BYBIT.liquidation.penalty_rate_cap
    assert insurance.settle_close(1.0, 64_980.0, 64_000.0, penalty) == (cents(980), 0.0)
    assert insurance.settle_close(1.0, 63_950.0, 64_000.0, penalty) == (0.0, cents(50))


def test_interest_rate_of_eight_hours() -> None:
    """(0.06% - 0.03%) / 3 = 0.01%: what is paid where the premium lies within 0.05% of it."""
    assert BYBIT.funding.interest_rate == pytest.approx((0.0006 - 0.0003) / 3)
    assert funding.rate_by_rule(BYBIT.funding, 0.0005, 0.01, 0.005) == pytest.approx(0.0001)
