"""Coverage tests: published values, exact tails, and what no order or number of periods may break."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from models import coverage as cv
from models import coverage_card as cards
from models.coverage_text import table

HOUR_US = 3_600_000_000
hits = st.lists(st.booleans(), max_size=60)


def test_kupiec_of_no_exceedance_in_a_year_of_days_is_the_published_one() -> None:
    assert cv.kupiec(0, 250).ratio == pytest.approx(5.025, abs=0.001)
    assert cv.kupiec(0, 250).rejected


@pytest.mark.parametrize(("periods", "low", "high"), [(250, 1, 6), (1_000, 5, 16), (5_000, 37, 64)])
def test_what_kupiec_does_not_reject(periods: int, low: int, high: int) -> None:
    kept = [count for count in range(periods // 10) if not cv.kupiec(count, periods).rejected]
    assert kept == list(range(low, high + 1))


def test_the_traffic_light_is_basels() -> None:
    lights = [cv.zone(count, 250) for count in range(12)]
    assert lights == ["green"] * 5 + ["yellow"] * 5 + ["red"] * 2


@given(st.integers(1, 3_000), st.data())
def test_tails_are_those_of_scipy(periods: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, periods))
    assert cv.too_many(count, periods) == pytest.approx(binom.sf(count - 1, periods, 0.01), abs=1e-11)
    reached = binom.cdf(count, periods, 0.01)
    wanted = "green" if count == 0 or reached < 0.95 else "yellow" if reached < 0.9999 else "red"
    if min(abs(reached - 0.95), abs(reached - 0.9999)) > 1e-9:
        assert cv.zone(count, periods) == wanted


@given(st.integers(1, 500), st.data())
def test_likelihood_ratios_have_chi_squared_tails(periods: int, data: st.DataObject) -> None:
    found = cv.kupiec(data.draw(st.integers(0, periods)), periods)
    assert found.ratio >= 0.0
    assert found.p_value == pytest.approx(chi2.sf(found.ratio, 1), rel=1e-9, abs=1e-300)
    runs = cv.independence(np.array(data.draw(hits), bool))
    both = cv.conditional_coverage(found, runs)
    assert both.p_value == pytest.approx(chi2.sf(both.ratio, 2), rel=1e-9, abs=1e-300, nan_ok=True)


def test_independence_is_christoffersens_of_a_worked_table() -> None:
    # of 100 periods after a quiet one 10 exceed, of 10 after an exceedance 5
    exceeded = np.array([False] * 91 + [True, False] * 5 + [True, True] * 5 + [False], bool)
    before, after = exceeded[:-1], exceeded[1:]
    counts = [[int(((before == a) & (after == b)).sum()) for b in (False, True)] for a in (False, True)]

    def log_likelihood(rows: list[list[int]]) -> float:
        return sum(n * math.log(n / sum(row)) for row in rows for n in row if n)

    tied = [[counts[0][0] + counts[1][0], counts[0][1] + counts[1][1]]]
    wanted = 2.0 * (log_likelihood(counts) - log_likelihood(tied))
    assert cv.independence(exceeded).ratio == pytest.approx(wanted)


def test_runs_are_seen_and_gaps_say_nothing() -> None:
    exceeded = np.zeros(1_000, bool)
    exceeded[500:508] = True
    assert cv.independence(exceeded).rejected
    assert not cv.kupiec(8, 1_000).rejected
    apart = np.zeros(1_000, bool)
    assert math.isnan(cv.independence(exceeded, apart).ratio)


@given(hits)
def test_nothing_breaks_where_there_is_little(exceeded: list[bool]) -> None:
    flags = np.array(exceeded, bool)
    count, number = int(flags.sum()), len(flags)
    pof, runs = cv.kupiec(count, number), cv.independence(flags)
    assert math.isnan(pof.ratio) == (number == 0)
    assert math.isnan(runs.ratio) == (number < 2)
    assert cv.too_many(count, number) <= 1.0
    assert len(cv.zones(flags, window=10)) == number // 10


def test_excess_is_of_exceedances_alone() -> None:
    found = cv.excess(np.array([0.01, 0.05, 0.09]), np.array([0.02, 0.04, 0.06]))
    assert found == pytest.approx((0.02, 0.03, (1.25 + 1.5) / 2))
    assert all(math.isnan(value) for value in cv.excess(np.array([0.01]), np.array([0.02])))


def test_a_portfolio_is_judged_on_what_is_known_of_it() -> None:
    loss = np.array([0.01, np.nan, 0.03, 0.01, 0.05])
    held = np.array([0.02, 0.02, 0.02, np.nan, 0.02])
    found = cards.portfolio(cards.Periods(np.arange(5) * HOUR_US, loss, held), HOUR_US)
    assert (found["exceedances"], found["periods"]) == (2, 3)
    assert found["independence"]["p_value"] is None  # none of the three follows another
    assert found["basel"]["window"] == 3
    assert found["too_many_p_value"] == pytest.approx(binom.sf(1, 3, 0.01))
    empty = cards.portfolio(cards.Periods(*(column[:0] for column in (np.arange(5), loss, held))), HOUR_US)
    assert empty["exceedance_rate"] is None
    assert cards.together({"a": found, "b": empty})["basel"]["green_share"] == 0.0


def posted(share: float, together: bool, days: int = 60) -> cards.Posted:
    """Twenty accounts every hour, of which a share exceeds: at the same hours, or each at its own."""
    generator = np.random.default_rng(0)
    hours, accounts = 24 * days, 20
    chance = generator.random((hours, 1 if together else accounts))
    loss = np.where(np.broadcast_to(chance < share, (hours, accounts)), 0.2, 0.0).ravel()
    ones = np.ones(hours * accounts)
    return cards.Posted(np.repeat(np.arange(hours) * HOUR_US, accounts), 100.0 * ones, loss, 0.1 * ones)


def test_a_margin_that_holds_too_little_is_rejected_and_a_safe_one_is_not() -> None:
    assert cards.accounts(posted(0.03, together=False))["rejected"]
    safe = cards.accounts(posted(0.0, together=False))
    assert not safe["rejected"]
    assert safe["mean_shortfall_usd"] is None
    found = cards.accounts(posted(0.03, together=False))
    assert found["mean_shortfall_usd"] == pytest.approx(10.0)
    assert found["share_of_accounts"] == pytest.approx(0.03, abs=0.003)


def test_accounts_that_exceed_together_are_not_counted_as_if_they_were_alone() -> None:
    alone = cards.accounts(posted(0.03, together=False))
    crowd = cards.accounts(posted(0.03, together=True))
    slack = [of["share_of_accounts"] - of["share_of_accounts_low"] for of in (alone, crowd)]
    assert slack[1] > 3 * slack[0]
    assert cards.accounts(posted(0.03, together=False, days=3))["share_of_accounts_low"] is None


def test_the_table_says_all_of_it() -> None:
    periods = cards.Periods(np.arange(4) * HOUR_US, np.array([0.0, 0.1, 0.0, 0.0]), np.full(4, 0.05))
    of = {"long BTC-PERP": cards.portfolio(periods, HOUR_US)}
    margins = dict.fromkeys(("suggested", "static", "in_force"), cards.accounts(posted(0.03, True)))
    one = {"all": cards.together(of), "portfolios": of, "accounts": margins}
    told = table({"from": "a", "to": "b", "periods": {"1h": one}})
    assert "long BTC-PERP" in told
    assert "static schedule" in told
