"""BitMEX and Deribit.

Sources
- BitMEX, "Auto-Deleveraging Further Information", testnet.bitmex.com/app/autoDeleveragingExamples, and
  "What is Auto-Deleveraging?", support.bitmex.com/hc/en-gb/articles/18589621443357
- BitMEX, "Perpetual Contracts Guide Examples", bitmex.com/app/perpetualContractsGuideExamples
- BitMEX, "Reduction in Base Maintenance Margin", blog.bitmex.com/site_announcement (17 April 2020)
- BitMEX's bankruptcy price with leverage, as at help.bybit.com/hc/en-us/articles/900000031623 for the same
  contract
- Deribit, "Funding Specifications", support.deribit.com/hc/en-us/articles/31424939178397
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from exchange import deleveraging, funding
from exchange.rules import BITMEX, bankruptcy_price_of, liquidation_price_of
from tests.exchange.worked_examples.examples import cents, market

# account, quantity, effective leveraged profit: the document's six longs
RANKS = np.array([3.0, 6.0, 1.0, 4.0, 5.0, 2.0])
SIZES = np.array([10.0, 10.0, 20.0, 30.0, 20.0, 10.0])


def test_bitmex_queue_of_six_longs_in_fifths() -> None:
    """Accounts 2, 5, 4, 1, 6, 3 stand in the fifths 20%, 40%, 60%, 80%, 80%, 100%."""
    order = np.argsort(-RANKS)
    assert list(order + 1) == [2, 5, 4, 1, 6, 3]
    assert list(deleveraging.queue_fifth(RANKS, SIZES)[order]) == [0.2, 0.4, 0.6, 0.8, 0.8, 1.0]


def test_bitmex_short_of_twenty_takes_all_of_account_two_and_half_of_account_five() -> None:
    """Liquidated at a bankruptcy price of 650: 10 of account 2 and 10 of account 5, which keeps 10."""
    taken = deleveraging.take_by_rank(RANKS, SIZES, 20.0)
    assert list(taken) == [0.0, 10.0, 0.0, 0.0, 10.0, 0.0]
    assert (SIZES - taken)[4] == 10.0
    assert deleveraging.deleverage_price(BITMEX.deleveraging_price, 650.0, 700.0, 690.0) == 650.0


def test_bitmex_rank_of_a_winner_and_of_a_loser() -> None:
    """Worked by hand from the formula. Long 100 at 500, mark 650, bankrupt at 450: profit 30%, leverage
    65,000 / 20,000 = 3.25, rank 0.975. Entered at 800 instead: -18.75% / 3.25 = -0.0577."""

    def place(entry: float) -> float:
        return deleveraging.rank(
            BITMEX.deleveraging_rank, 100.0, entry, 650.0, 20_000.0, 5_000.0, 325.0, 65_000.0, 450.0, 0.0
        )

    assert place(500.0) == pytest.approx(0.30 * 3.25)
    assert place(800.0) == pytest.approx(-0.1875 / 3.25)


def test_bitmex_rank_of_a_short() -> None:
    """Short 100 at 800, mark 650, bankrupt at 900: (-65,000 + 80,000) / 80,000 = 18.75% and
    65,000 / 25,000 = 2.6. Worked by hand from the formula."""
    rank = deleveraging.rank(
        BITMEX.deleveraging_rank, -100.0, 800.0, 650.0, 25_000.0, 10_000.0, 325.0, 65_000.0, 900.0, 0.0
    )
    assert rank == pytest.approx(0.1875 * 2.6)


def test_bitmex_funding_of_twenty_bitcoin() -> None:
    """Long 15,000 XBTUSD at 750 is 20 XBT; (1.00% - 0.25%) / 3 = 0.25% of it: 0.05 XBT are paid."""
    interest = (0.0100 - 0.0025) / 3
    rate = funding.funding_rate(interest, interest, 0.0005, math.inf, 1.0)
    assert funding.funding_payment_usd(15_000.0, 1 / 750, rate) == pytest.approx(0.05)


def test_bitmex_cap_rises_as_maintenance_margin_falls() -> None:
    """75% x (initial - maintenance): XBTUSD with 1% and 0.50%, then 0.45%."""
    assert funding.funding_cap(BITMEX.funding, 0.01, 0.0050) == pytest.approx(0.00375)
    assert funding.funding_cap(BITMEX.funding, 0.01, 0.0045) == pytest.approx(0.004125)


def test_bitmex_inverse_bankruptcy_and_liquidation() -> None:
    """Worked by hand: 10,000 USD long at 10,000 on 0.02 XBT, taker fee 0.075%, maintenance 0.4% on the entry
    value. Bankrupt where 1.02 = (1 + 0.075%) 10,000 / p: 9,811.27, up to the half dollar 9,811.50;
    liquidated where 0.02 - 10,000 / p + 1 = 0.004 + 0.00075 x 10,000 / 9,811.27: 9,849.92."""
    contract = market(0.01, 0.004, taker_fee_rate=0.00075, tick_size=0.5)
    bankruptcy = bankruptcy_price_of(contract, 10_000.0, 10_000.0, 0.02, BITMEX, inverse=True)
    assert bankruptcy == 9_811.5
    exact = 1.00075 * 10_000 / 1.02
    by_hand = 10_000 / (1.02 - 0.004 - 0.00075 * 10_000 / exact)
    assert liquidation_price_of(contract, 10_000.0, 10_000.0, 0.02, BITMEX, inverse=True) == cents(by_hand)


@pytest.mark.parametrize(
    ("mark", "rate"),
    # mark over an index of 10,000: the premium less 0.025%, nothing within it, at most 0.5%
    [(10_010.0, 0.00075), (9_990.0, -0.00075), (10_002.0, 0.0), (9_998.0, 0.0), (10_100.0, 0.005)],
)
def test_deribit_damps_the_premium_and_caps_it(mark: float, rate: float) -> None:
    premium = (mark - 10_000) / 10_000
    assert funding.funding_rate(premium, 0.0, 0.00025, 0.005, 1.0) == pytest.approx(rate, abs=1e-12)


def test_deribit_pays_by_the_minute() -> None:
    """0.075% in 8 hours on $10,000: 1/480 of it in a minute, $0.015625. Worked by hand from the formula."""
    rate = funding.funding_rate(0.001, 0.0, 0.00025, 0.005, 1 / 480)
    assert funding.funding_payment_usd(1.0, 10_000.0, rate) == pytest.approx(0.015625)
