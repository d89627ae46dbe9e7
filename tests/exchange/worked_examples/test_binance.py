"""Binance. Liquidation prices of its document's account stand in tests/exchange/test_worked_examples.py;
here the same account goes through the venue's rules.

Sources
- "How to Calculate Liquidation Price of USD-M Futures Contracts",
  binance.com/en/support/faq/b3c689c1f50a44cabb3a84e663b81d93
- "What Is Auto-Deleveraging (ADL) and How Does It Work", binance.com/en/support/faq/360033525471
- "How to calculating Leverage Pnl Quantile",
  dev.binance.vision/t/how-to-caculating-leverage-pnl-quantile/17801
- "Introduction to Binance Futures Funding Rates", binance.com/en/support/faq/360033525031
- "Mark Price and Price Index", binance.com/en/support/faq/360033525071
"""

from __future__ import annotations

import math

import pytest

from exchange import deleveraging, funding
from exchange.mark import index_mark
from exchange.rules import BINANCE, liquidation_price_of, margin_of
from tests.exchange.worked_examples.examples import cents, tiered

ETH = tiered(
    (10_000, 100, 0.5), (100_000, 75, 0.65), (500_000, 50, 1.0), (1_000_000, 25, 2.0), (2_000_000, 10, 5.0),
    (5_000_000, 5, 10.0), (10_000_000, 4, 12.5), (20_000_000, 3, 15.0), (math.inf, 2, 25.0),
)  # fmt: skip
BTC = tiered(
    (50_000, 125, 0.4), (250_000, 100, 0.5), (1_000_000, 50, 1.0), (5_000_000, 20, 2.5),
    (20_000_000, 10, 5.0), (50_000_000, 5, 10.0), (100_000_000, 4, 12.5),
    (200_000_000, 3, 15.0), (math.inf, 2, 25.0),
)  # fmt: skip
WALLET = 1_535_443.01
ETH_LONG, ETH_ENTRY, ETH_MARK = 3_683.979, 1_456.84, 1_335.18
BTC_LONG, BTC_ENTRY, BTC_MARK = 109.488, 32_481.98, 31_967.27


def test_the_two_longs_of_the_documents_cross_account() -> None:
    """Maintenance 356,512.508 and 71,200.811; liquidation at 1,153.26 and 26,316.89."""
    eth = margin_of(ETH, ETH_LONG, ETH_MARK, BINANCE).maintenance_usd
    btc = margin_of(BTC, BTC_LONG, BTC_MARK, BINANCE).maintenance_usd
    assert (eth, btc) == (cents(356_512.508), cents(71_200.811))
    collateral = WALLET + ETH_LONG * (ETH_MARK - ETH_ENTRY) + BTC_LONG * (BTC_MARK - BTC_ENTRY)
    assert liquidation_price_of(
        ETH, ETH_LONG, ETH_MARK, collateral, BINANCE, others_maintenance_usd=btc
    ) == cents(1_153.26)
    assert liquidation_price_of(
        BTC, BTC_LONG, BTC_MARK, collateral, BINANCE, others_maintenance_usd=eth
    ) == cents(26_316.89)


def test_leverage_pnl_of_the_developer_forums_account() -> None:
    """Profit 40.2 on a wallet of 4.27 at a margin ratio of 13.42%: 9.41 x 13.42% = 1.26."""
    equity = 4.27 + 40.2
    rank = deleveraging.rank(
        deleveraging.BINANCE, 1.0, 100.0, 140.2, equity, 4.27, 0.1342 * equity, 140.2, math.nan, 0.0
    )
    assert rank / 0.1342 == cents(9.41)
    assert rank == cents(1.26)


def test_a_wallet_below_one_counts_as_one_and_a_loser_has_rank_zero() -> None:
    """max(0, unrealised profit) / max(1, wallet): worked by hand from the formula."""
    poor = deleveraging.rank(deleveraging.BINANCE, 1.0, 100.0, 110.0, 10.5, 0.5, 2.1, 110.0, math.nan, 0.0)
    assert poor == pytest.approx(10.0 / 1.0 * (2.1 / 10.5))
    loser = deleveraging.rank(deleveraging.BINANCE, 1.0, 100.0, 90.0, 10.5, 20.5, 2.1, 90.0, math.nan, 0.0)
    assert loser == 0.0


def test_rank_by_profit_share_times_leverage() -> None:
    """The later formula, profit / notional x notional / (wallet + profit), worked by hand: a short of 2 at
    100, mark 80, wallet 60: 40 / 160 x 160 / 100 = 0.4. In loss divided: mark 110, -20 / 220 / (220 / 40)."""
    assert BINANCE.deleveraging_rank == deleveraging.PROFIT_LEVERAGE
    won = deleveraging.rank(
        BINANCE.deleveraging_rank, -2.0, 100.0, 80.0, 100.0, 60.0, 8.0, 160.0, math.nan, 0.0
    )
    assert won == pytest.approx(0.4)
    lost = deleveraging.rank(
        BINANCE.deleveraging_rank, -2.0, 100.0, 110.0, 40.0, 60.0, 11.0, 220.0, math.nan, 0.0
    )
    assert lost == pytest.approx(-(20 / 220) / (220 / 40))


def test_interest_of_a_day_on_twenty_thousand_dollars() -> None:
    """0.01% each 8 hours, 0.03% a day: 2 USDT a payment, 6 a day, while the premium is within 0.05%."""
    rate = funding.rate_by_rule(BINANCE.funding, 0.0003, 0.008, 0.004)
    assert rate == pytest.approx(0.0001)
    paid = funding.funding_payment_usd(1.0, 20_000.0, rate)
    assert (paid, 3 * paid) == (cents(2.0), cents(6.0))


def test_rate_of_a_contract_that_settles_every_four_hours() -> None:
    """F = [P + clamp(I - P, 0.05%, -0.05%)] / (8 / N) since September 2025: worked by hand."""
    rate = funding.funding_rate(0.002, 0.0001, 0.0005, math.inf, 4 / 8)
    assert rate == pytest.approx(0.00075)


def test_cap_of_three_quarters_of_the_maintenance_rate() -> None:
    """0.75 x 0.4% = 0.3% for BTCUSDT: worked by hand from the formula."""
    assert funding.rate_by_rule(BINANCE.funding, 0.01, 0.008, 0.004) == pytest.approx(0.003)
    assert funding.rate_by_rule(BINANCE.funding, -0.01, 0.008, 0.004) == pytest.approx(-0.003)


def test_mark_is_price_two_where_it_is_the_middle_one() -> None:
    """Price 1 < Price 2 < contract price gives Price 2; the numbers are worked by hand."""
    price_1 = 36_350 * (1 + 0.0001 * 4 / 8)
    assert price_1 == cents(36_351.82)
    assert index_mark(36_350.0, 0.0001, 4.0, 8.0, 30.0, 36_500.0) == cents(36_380.0)
    assert index_mark(36_350.0, 0.0001, 4.0, 8.0, 30.0, 36_370.0) == cents(36_370.0)
