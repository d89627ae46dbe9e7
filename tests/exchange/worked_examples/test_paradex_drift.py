"""Paradex and Drift v2.

Sources
- Paradex, "Liquidations", docs.paradex.trade/risk/liquidations (its example was written for a liquidation fee
  of 50%, the text now says 70%); "Funding Mechanism", docs.paradex.trade/risk/funding-mechanism
- Drift, "Liquidation engine", docs.drift.trade/liquidations/liquidation-engine; "Funding Rates",
  docs.drift.trade/trading/funding-rates; github.com/drift-labs/protocol-v2, math/liquidation.rs
"""

from __future__ import annotations

import pytest

from exchange import funding, liquidation
from exchange.rules import DRIFT, PARADEX, margin_of
from tests.exchange.worked_examples.examples import cents, market


def test_paradex_liquidates_two_fifths_of_alices_positions() -> None:
    """Long 0.1 BTC from 60,000 to 54,800 and short 1 ETH from 3,000 to 3,400 on 1,000 USDC, maintenance 1%:
    80 of 88.80. Two fifths go for a penalty of 17.76; 614.24 and a margin ratio of 85.6% are left."""
    one_percent = market(0.02, 0.01)
    loss = 0.1 * (54_800 - 60_000) - 1.0 * (3_400 - 3_000)
    assert loss == pytest.approx(-920)
    value = 1_000 + loss
    maintenance = (
        margin_of(one_percent, 0.1, 54_800.0, PARADEX).maintenance_usd
        + margin_of(one_percent, -1.0, 3_400.0, PARADEX).maintenance_usd
    )
    assert maintenance == cents(88.80)
    rule = PARADEX.liquidation._replace(penalty_maintenance_share=0.5)
    assert liquidation.must_liquidate(value, maintenance, rule)
    share = liquidation.share_to_safety(value, maintenance, rule)
    assert share == pytest.approx(0.4)
    penalty = share * maintenance * rule.penalty_maintenance_share
    assert penalty == cents(17.76)
    assert 1_000 + share * loss - penalty == cents(614.24)
    assert (1 - share) * maintenance / (value - penalty) == pytest.approx(0.856, abs=5e-4)
    assert (1 - share) * 0.1 == pytest.approx(0.06)


def test_paradex_at_a_fee_of_seventy_percent_needs_one_fifth_more() -> None:
    """53.28 / 55.14 = 96.6% after two fifths, 35.52 / 42.70 = 83.2% after three: worked by hand."""
    assert PARADEX.liquidation.penalty_maintenance_share == 0.7
    assert liquidation.share_to_safety(80.0, 88.8, PARADEX.liquidation) == pytest.approx(0.6)


def test_paradex_funding_by_its_defaults() -> None:
    """Baseline 0.01%, clamp 0.05%, at most 5% in 8 hours; worked by hand from the formula."""
    assert funding.rate_by_rule(PARADEX.funding, 0.0004, 0.02, 0.01) == pytest.approx(0.0001)
    assert funding.rate_by_rule(PARADEX.funding, 0.002, 0.02, 0.01) == pytest.approx(0.0015)
    assert funding.rate_by_rule(PARADEX.funding, -0.2, 0.02, 0.01) == pytest.approx(-0.05)


def test_drift_pays_a_twenty_fourth_of_the_premium_each_hour() -> None:
    """1/24 x (mark - oracle) / oracle, clamped to 0.125% an hour in tiers of B and better: 24 over 1,000 is
    0.1% and a $10,000 long pays $10; 40 over 1,000 is clamped. Worked by hand from the formula."""
    rate = funding.rate_by_rule(DRIFT.funding, 24 / 1_000, 0.1, 0.05)
    assert funding.funding_payment_usd(10.0, 1_000.0, rate) == cents(10.0)
    assert funding.rate_by_rule(DRIFT.funding, 40 / 1_000, 0.1, 0.05) == pytest.approx(0.00125)


def test_drift_stops_at_maintenance_and_two_percent_of_the_notional() -> None:
    """$10,000 at 5%: liquidated under $500, safe again at $700. With $600: a shortage of 100 at 7% a dollar
    needs $1,428.57 closed. Worked by hand from the program's constants."""
    rule = DRIFT.liquidation
    assert liquidation.must_liquidate(499.99, 500.0, rule)
    assert not liquidation.must_liquidate(500.0, 500.0, rule)
    assert not liquidation.is_safe_again(699.99, 500.0, rule, 10_000.0)
    assert liquidation.is_safe_again(700.0, 500.0, rule, 10_000.0)
    assert liquidation.notional_to_safety_usd(600.0, 500.0, 10_000.0, 0.05, rule) == cents(1_428.57)


def test_drift_frees_the_whole_within_a_minute() -> None:
    """150 slots of 0.4 s: what is closed grows by a sixtieth a second."""
    rule = DRIFT.liquidation
    at_start = left = 600_000.0
    seconds = 0
    while left > 0.0:
        left -= liquidation.step_notional_usd(left, at_start, seconds, rule)
        seconds += 1
        assert seconds < 100
    assert seconds == pytest.approx(60, abs=1)
