"""dYdX v4, from its documents and from the cases by which its own program is tested.

Sources
- "Liquidations", "Margin", "Funding", "Contract Loss Mechanisms", docs.dydx.xyz/concepts/trading
- "Contract loss mechanisms on dYdX Chain", help.dydx.trade/en/articles/166973
- "Trading Core: Deleveraging Example", docs.dydx.community (governance-adjustable parameters)
- github.com/dydxprotocol/v4-chain, protocol/x/clob/keeper/liquidations_test.go:
  TestGetBankruptcyPriceInQuoteQuantums, TestGetFillablePrice, TestGetLiquidationInsuranceFundDelta, and
  protocol/x/clob/e2e TestLiquidationConfig (inputs and expected values)
"""

from __future__ import annotations

import math

import pytest

from exchange import deleveraging, funding, insurance, liquidation
from exchange.margin import bankruptcy_share_usd
from exchange.rules import DYDX, bankruptcy_cash_usd, bankruptcy_price_of, liquidation_price_of, margin_of
from tests.exchange.worked_examples.examples import cents, market

TEN_PERCENT = market(0.2, 0.1)
BTC, ETH = 50_000.0, 3_000.0


def test_isolated_liquidation_price_of_a_short() -> None:
    """$1,000, short 3 ETH at 3,000, maintenance 5%: 10,000 / 3.15 = 3,174.60."""
    assert liquidation_price_of(market(0.1, 0.05), -3.0, 3_000.0, 1_000.0, DYDX) == cents(3_174.60)


def test_cross_liquidation_price_of_a_short_beside_a_long() -> None:
    """$1,000, short 1.5 ETH at 3,000, long 1,000 STRK at 1.75 (10%): (5,500 - 175) / 1.575 = 3,380.95."""
    strk = margin_of(market(0.2, 0.10), 1_000.0, 1.75, DYDX).maintenance_usd
    assert strk == cents(175.0)
    price = liquidation_price_of(market(0.1, 0.05), -1.5, 3_000.0, 1_000.0, DYDX, others_maintenance_usd=strk)
    assert price == cents(3_380.95)


@pytest.mark.parametrize(
    ("quote_usd", "quantity", "closed", "cash_usd"),
    [
        (-4_501, 0.1, 0.1, 4_501), (5_499, -0.1, -0.1, -5_499),
        (-5_000, 0.1, 0.1, 5_000), (-5_000, 0.1, 0.05, 2_500), (5_000, -0.1, -0.05, -2_500),
        (5_000, -0.1, -0.1, -5_000), (-5_100, 0.1, 0.1, 5_100), (4_900, -0.1, -0.1, -4_900),
        # "rounded up from 2,775.11 quote quantums", "rounded down from 2,775.11"
        (-13, 1.0, 0.00021347, 0.002776), (13, -1.0, -0.00021347, -0.002775),
    ],
)  # fmt: skip
def test_bankruptcy_price_of_one_bitcoin_position(
    quote_usd: float, quantity: float, closed: float, cash_usd: float
) -> None:
    """A tenth of a bitcoin at 50,000 that stands at -4,501 must bring $4,501, and so on."""
    equity = quote_usd + quantity * BTC
    price = bankruptcy_price_of(TEN_PERCENT, quantity, BTC, equity, DYDX)
    assert bankruptcy_cash_usd(closed, price, DYDX) == pytest.approx(cash_usd, abs=1e-9)


@pytest.mark.parametrize(
    ("quote_usd", "btc", "eth", "cash_usd"),
    [(-490, 0.004, 0.1, 294), (510, -0.004, -0.1, -306), (110, 0.004, -0.1, -306)],
)
def test_bankruptcy_price_in_a_cross_account(
    quote_usd: float, btc: float, eth: float, cash_usd: float
) -> None:
    """$10 of equity behind $200 of bitcoin and $300 of ether: 6 of them behind the ether."""
    equity = quote_usd + btc * BTC + eth * ETH
    eth_needs = margin_of(TEN_PERCENT, eth, ETH, DYDX).maintenance_usd
    needs = eth_needs + margin_of(TEN_PERCENT, btc, BTC, DYDX).maintenance_usd
    share = bankruptcy_share_usd(equity, eth_needs, needs)
    assert share == cents(6.0)
    price = bankruptcy_price_of(TEN_PERCENT, eth, ETH, share, DYDX)
    assert bankruptcy_cash_usd(eth, price, DYDX) == pytest.approx(cash_usd, abs=1e-9)


def test_a_long_that_its_equity_covers_has_no_bankruptcy_price() -> None:
    """1 BTC and a dollar: bankrupt only if it were sold for less than nothing."""
    assert math.isnan(bankruptcy_price_of(TEN_PERCENT, 1.0, BTC, BTC + 1.0, DYDX))


@pytest.mark.parametrize(
    ("quote_usd", "quantity", "adjustment", "spread", "price"),
    [
        (-4_501, 0.1, 1.0, 0.1, 49_999), (-4_501, 0.1, 2.0, 0.1, 49_998), (-4_501, 0.1, 1.0, 0.2, 49_998),
        (5_499, -0.1, 1.0, 0.1, 50_001), (5_499, -0.1, 2.0, 0.1, 50_002), (5_499, -0.1, 1.0, 0.2, 50_002),
        (-5_000, 0.1, 1.0, 0.1, 49_500), (5_000, -0.1, 1.0, 0.1, 50_500),
        (-5_500, 0.1, 1.0, 0.1, 49_500), (4_500, -0.1, 1.0, 0.1, 50_500),
        (-4_501, 0.1, 4_294.967295, 0.1, 49_500), (-4_501, 0.1, 1.0, 1.0, 49_990),
        (-4_501, 0.1, 1.0, 1e-6, 49_999.99999),
    ],
)  # fmt: skip
def test_fillable_prices_of_one_position(
    quote_usd: float, quantity: float, adjustment: float, spread: float, price: float
) -> None:
    equity = quote_usd + quantity * BTC
    needs = abs(quantity) * BTC * 0.1
    found = liquidation.fillable_price(quantity, BTC, needs, equity, needs, spread, adjustment)
    assert found == pytest.approx(price, abs=1e-6)


def test_fillable_price_in_a_cross_account() -> None:
    """The same $10 over $50 of maintenance margin: 3,000 x (1 - 0.8 x 10% x 10%) = 2,976."""
    assert liquidation.fillable_price(0.1, ETH, 30.0, 10.0, 50.0, 0.1) == cents(2_976.0)


@pytest.mark.parametrize(
    ("bankruptcy", "quantity", "fill", "fee", "delta_usd"),
    [
        (51_000, 0.1, 56_100, 0.005, 28.05), (51_000, 0.1, 56_100, 0.025, 140.25),
        (51_000, 0.1, 56_100, 1.0, 510.0), (49_000, -0.1, 44_100, 0.005, 22.05),
        (49_000, -0.1, 44_100, 0.025, 110.25), (49_000, -0.1, 44_100, 1.0, 490.0),
        (51_000, 0.1, 51_051, 0.005, 5.10), (49_000, -0.1, 48_951, 0.005, 4.90),
        (51_000, 0.1, 51_000, 0.005, 0.0), (49_000, -0.1, 49_000, 0.005, 0.0),
        (51_000, 0.1, 50_490, 0.005, -51.0), (49_000, -0.1, 49_490, 0.005, -49.0),
    ],
)  # fmt: skip
def test_what_the_insurance_fund_gains_or_pays(
    bankruptcy: float, quantity: float, fill: float, fee: float, delta_usd: float
) -> None:
    to_fund, from_fund = insurance.settle_close(quantity, fill, bankruptcy, fee)
    assert to_fund - from_fund == pytest.approx(delta_usd, abs=1e-9)


def test_a_long_at_an_equity_of_half_a_dollar_sold_with_the_funds_money() -> None:
    """A long of 500 at $1 on $100: at $0.801 it has $0.50 of the $15 it needed at first; its bankruptcy price
    is $0.80 and the fund pays $15 when it is sold at $0.77, which the fillable price allows."""
    needs = margin_of(market(0.1, 0.03), 500.0, 1.0, DYDX).maintenance_usd
    assert needs == cents(15.0)
    equity = 100.0 + 500.0 * (0.801 - 1.0)
    assert equity == cents(0.50)
    bankruptcy = bankruptcy_price_of(market(0.1, 0.03), 500.0, 0.801, equity, DYDX)
    assert bankruptcy == pytest.approx(0.80)
    fee = DYDX.liquidation.penalty_rate_cap
    assert insurance.settle_close(500.0, 0.77, bankruptcy, fee) == (0.0, cents(15.0))
    needs_now = 0.03 * 500 * 0.801
    limit = liquidation.fillable_price(500.0, 0.801, needs_now, equity, needs_now, 1.5)
    assert 0.801 * (1 - 1.5 * 0.03) < limit < 0.77


def test_a_spread_of_seven_and_a_half_percent_over_an_equity_of_two() -> None:
    """The fund covers the 5.5% between: worked on a notional of $100."""
    fee = DYDX.liquidation.penalty_rate_cap
    assert insurance.settle_close(1.0, 100 * (1 - 1.5 * 0.05), 98.0, fee) == (0.0, cents(5.5))


@pytest.mark.parametrize(
    ("least_usd", "share", "closed_usd"), [(100_000.0, 0.01, 50_000.0), (1_000.0, 0.1, 5_000.0)]
)
def test_how_much_a_block_may_close(least_usd: float, share: float, closed_usd: float) -> None:
    """1% of $50,000 is less than the least size of $100,000: all goes. By default 10%, at least $1,000."""
    rule = DYDX.liquidation._replace(least_step_usd=least_usd, first_share=share, step_share=share)
    assert liquidation.step_notional_usd(50_000.0, 50_000.0, 0, rule) == closed_usd
    assert (DYDX.liquidation.least_step_usd, DYDX.liquidation.step_share) == (1_000.0, 0.1)


def test_a_short_closed_whole_for_a_fee_of_half_a_percent() -> None:
    """$50,499 and short 1 BTC, bought back at 50,000: 50,499 - 50,000 - 250 = 249 are left."""
    bankruptcy = bankruptcy_price_of(TEN_PERCENT, -1.0, BTC, 499.0, DYDX)
    to_fund, from_fund = insurance.settle_close(-1.0, BTC, bankruptcy, 0.005)
    assert 50_499 - BTC - to_fund + from_fund == cents(249.0)


def test_deleveraging_at_the_bankruptcy_price() -> None:
    """B shorts 500 at $1 on $100; at $2 equity is -$400 and the price $1.20: A wins $100, B has nothing."""
    equity = 100.0 - 500.0 * (2.0 - 1.0)
    bankruptcy = bankruptcy_price_of(TEN_PERCENT, -500.0, 2.0, equity, DYDX)
    assert bankruptcy == pytest.approx(1.20)
    price = deleveraging.deleverage_price(DYDX.deleveraging_price, bankruptcy, 2.0, 1.0)
    assert 500 * (price - 1.0) == cents(100.0)
    assert 100.0 - 500 * (price - 1.0) == cents(0.0)


def test_deleveraging_of_a_long_at_an_index_of_900() -> None:
    """A: -1,000 USDC and 1 BTC; B: 10,000 USDC and -9 BTC takes it over and has 9,000 USDC and -8 BTC, a loss
    of 100 at that price; its margin percentage rises to 25%."""
    price = bankruptcy_price_of(TEN_PERCENT, 1.0, 900.0, -1_000 + 900.0, DYDX)
    assert price == cents(1_000.0)
    cash = 10_000 - price
    assert cash == cents(9_000)
    assert (10_000 - 9 * 900) - (cash - 8 * 900) == cents(100)
    assert cash / (8 * 900) - 1 == pytest.approx(0.25)


def test_funding_is_capped_at_six_times_the_difference_of_the_margins() -> None:
    """Large-cap markets, 5% and 3%: 600% x 2% = 12% in 8 hours."""
    cap = funding.funding_cap(DYDX.funding, 0.05, 0.03)
    assert cap == pytest.approx(0.12)
    assert funding.rate_by_rule(DYDX.funding, 0.5, 0.05, 0.03) == pytest.approx(0.12 / 8)


def test_funding_is_an_eighth_of_the_premium_and_the_interest() -> None:
    """Premium / 8 + interest; isolated markets 0.125 basis points an hour. Worked by hand."""
    assert funding.rate_by_rule(DYDX.funding, 0.0008, 0.05, 0.03) == pytest.approx(0.0001)
    isolated = DYDX.funding._replace(interest_rate=0.0001)
    assert funding.rate_by_rule(isolated, 0.0008, 0.05, 0.03) == pytest.approx(0.0001 + 0.0000125)


def test_an_account_with_exactly_its_maintenance_margin_is_safe() -> None:
    assert not liquidation.must_liquidate(500.0, 500.0, DYDX.liquidation)
    assert liquidation.must_liquidate(499.99, 500.0, DYDX.liquidation)
