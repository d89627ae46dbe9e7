"""OKX, Gate and Phemex: the taker fee for closing lies inside the trigger.

Sources
- OKX, "Introduction to the isolated mode", okx.com/help (vii-introduction-to-the-isolated-mode); "How do I
  calculate the liquidation price for futures?",
  okx.com/help/how-to-calculate-the-price-what-are-the-conditions-for-strong-flat
- OKX positions, as explained at ukcamo.com/4957.html (margin ratio at liquidation)
- OKX, "Automatic-Deleveraging", okx.com/en-ae/help/iv-introduction-to-auto-deleveraging-adl (numbers of the
  threshold also at ukcamo.com/4352.html); the same ranking in words at HTX, htx.com/support/64914554002695
- Gate, "Liquidation price, bankruptcy price", gate.io/help/futures/futures/27724; the formula with its fee of
  0.075% by Gate's support at gate.com/post/status/3870211
- freqtrade's tests (tests/exchange/test_exchange.py, test_get_liquidation_price) of Gate and OKX
- Phemex, "Liquidation price for USDT-M", phemex.com/help-center/liq-price-for-USDTM
"""

from __future__ import annotations

import math

import pytest

from exchange import deleveraging, insurance, liquidation
from exchange.rules import GATE, OKX, PHEMEX, VenueRules, bankruptcy_price_of, liquidation_price_of, margin_of
from tests.exchange.worked_examples.examples import cents, market, tiered


def test_okx_long_at_ten_times_is_liquidated_at_a_margin_ratio_of_1_55_percent() -> None:
    """1 BTC at 10,000 and 10x: margin 1,000; maintenance 1.50% and fee 0.05%: 9,000 / (1 - 1.55%)."""
    contract = market(0.1, 0.015, taker_fee_rate=0.0005)
    assert margin_of(contract, 1.0, 10_000.0, OKX, leverage=10).initial_usd == cents(1_000)
    price = liquidation_price_of(contract, 1.0, 10_000.0, 1_000.0, OKX)
    assert price == cents(9_141.70)
    assert (1_000 + price - 10_000) / price == pytest.approx(0.0155)
    assert bankruptcy_price_of(contract, 1.0, 10_000.0, 1_000.0, OKX) == cents(9_000)


@pytest.mark.parametrize("rules", [OKX, GATE], ids=lambda rules: rules.venue)
@pytest.mark.parametrize(
    ("side", "leverage", "entry", "price"),
    [
        (-1, 5, 10.0, 11.87413417771621), (-1, 3, 10.0, 13.193482419684678), (-1, 5, 8.0, 9.499307342172967),
        (1, 5, 10.0, 8.085708510208207), (1, 3, 10.0, 6.738090425173506),
    ],
)  # fmt: skip
def test_isolated_prices_that_another_program_finds(
    rules: VenueRules, side: int, leverage: float, entry: float, price: float
) -> None:
    """Maintenance 1%, taker fee 0.06%."""
    contract = market(0.05, 0.01, taker_fee_rate=0.0006)
    for size in (1.0, 2.0):
        margin = size * entry / leverage
        assert liquidation_price_of(contract, side * size, entry, margin, rules) == pytest.approx(price)


def test_gate_by_its_formula() -> None:
    """(entry -+ margin / size) / [1 -+ (maintenance + taker fee)], worked by hand: 0.5 BTC at 30,000 and 20x,
    0.4% and 0.075%: (30,000 - 1,500) / 0.99525 = 28,636.02 and 31,500 / 1.00475 = 31,351.08."""
    contract = market(0.01, 0.004, taker_fee_rate=0.00075)
    assert liquidation_price_of(contract, 0.5, 30_000.0, 750.0, GATE) == cents(28_636.02)
    assert liquidation_price_of(contract, -0.5, 30_000.0, 750.0, GATE) == cents(31_351.08)


def test_okx_takes_the_rate_of_the_tier_on_all_of_the_position() -> None:
    """Tier 1 to 1M at 0.5%, tier 2 at 1%: 2M needs 20,000, where tiers that add up need 15,000; the position
    keeps its tier on the way to the liquidation price. Worked by hand."""
    tiers = tiered((1_000_000, 50, 0.5), (math.inf, 20, 1.0))
    assert margin_of(tiers, 20.0, 100_000.0, OKX).maintenance_usd == cents(20_000)
    assert margin_of(tiers, 10.0, 100_000.0, OKX).maintenance_usd == cents(5_000)
    price = liquidation_price_of(tiers, 20.0, 100_000.0, 1_200_000.0, OKX)
    assert price == cents((2_000_000 - 1_200_000) / (20 * 0.99))


def test_okx_liquidates_at_a_ratio_of_exactly_one() -> None:
    for rules in (OKX, GATE, PHEMEX):
        assert rules.at_equality
        assert liquidation.must_liquidate(155.0, 155.0, rules.liquidation)


def test_okx_fund_below_its_threshold() -> None:
    """$400K on average of 8 hours less 30% is $280K: at $200K deleveraging begins, at $281K it does not."""
    assert insurance.spent(200_000.0, 400_000.0, OKX.fund_trigger)
    assert insurance.spent(280_000.0, 400_000.0, OKX.fund_trigger)
    assert not insurance.spent(281_000.0, 400_000.0, OKX.fund_trigger)


def test_okx_ranks_winners_by_profit_over_margin_ratio_and_closes_them_at_mark() -> None:
    """Profit ratio 20% at a margin ratio of 5%: 4; losing, -20% x 5%: -0.01. Worked by hand from the rule."""

    def place(profit_share: float) -> float:
        mark = 100.0
        entry = mark * (1 - profit_share)
        return deleveraging.rank(OKX.deleveraging_rank, 1.0, entry, mark, 5.0, 0.0, 1.0, mark, math.nan, 0.0)

    assert place(0.2) == pytest.approx(0.2 / 0.05)
    assert place(-0.2) == pytest.approx(-0.2 * 0.05)
    assert deleveraging.deleverage_price(OKX.deleveraging_price, 1.0, 2.0, 3.0) == 2.0


def test_phemex_long_of_five_hundred_at_five_times() -> None:
    """500 at 0.4: value 200, balance 200 / 5 + (200 - 40) x 0.06% = 40.096; liquidation at
    159.904 / 0.9894 / 500 = 0.3232."""
    contract = market(0.02, 0.01, taker_fee_rate=0.0006)
    need = margin_of(contract, 500.0, 0.4, PHEMEX, leverage=5)
    set_aside = 0.0006 * (200 - need.initial_usd)
    assert need.initial_usd + set_aside == pytest.approx(40.096)
    price = liquidation_price_of(contract, 500.0, 0.4, need.initial_usd + set_aside, PHEMEX)
    assert price == pytest.approx(0.3232, abs=5e-5)
    assert price == pytest.approx(159.904 / 0.9894 / 500)
