from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from exchange import funding, rules
from tests.exchange.strategies import law, prices, signed

premiums = st.floats(-0.05, 0.05)
INTEREST = 0.0001


@law
@given(prices(), st.floats(-0.05, 0.05), st.floats(0.0, 0.05))
def test_premium_is_zero_while_the_index_lies_between_the_impact_prices(
    index: float, middle: float, half_spread: float
) -> None:
    bid = index * (1.0 + middle - half_spread)
    ask = index * (1.0 + middle + half_spread)
    premium = funding.premium_rate(index, bid, ask)
    if bid <= index <= ask:
        assert premium == 0.0
    # the nearer impact price is what counts
    assert premium == pytest.approx(max(0.0, bid / index - 1.0) + min(0.0, ask / index - 1.0), abs=1e-15)


@law
@given(prices(), st.floats(0.0, 0.05), st.floats(0.0, 0.05))
def test_premium_of_a_mirrored_book_is_the_opposite(index: float, below: float, above: float) -> None:
    bid, ask = index * (1.0 - below), index * (1.0 + above)
    assert funding.premium_rate(index, 2 * index - ask, 2 * index - bid) == pytest.approx(
        -funding.premium_rate(index, bid, ask), abs=1e-12
    )


def test_premium_without_a_book_is_unknown() -> None:
    for book in ((math.nan, 101.0), (99.0, math.nan)):
        assert math.isnan(funding.premium_rate(100.0, *book))


@law
@given(st.lists(premiums, min_size=1, max_size=30))
def test_rising_weights_keep_the_mean_in_which_later_samples_count_more(samples: list[float]) -> None:
    mean = 0.0
    for number, value in enumerate(samples, start=1):
        mean += (value - mean) * funding.rising_weight(number)
    weights = range(1, len(samples) + 1)
    by_definition = sum(w * x for w, x in zip(weights, samples, strict=True)) / sum(weights)
    assert mean == pytest.approx(by_definition, abs=1e-12)


@law
@given(premiums, st.floats(0.0, 0.001), st.floats(0.0001, 0.01), st.sampled_from((1.0, 0.5, 1 / 8)))
def test_rate_is_interest_near_it_and_the_premium_less_the_clamp_far_from_it(
    premium: float, clamp: float, cap: float, share: float
) -> None:
    rate = funding.funding_rate(premium, INTEREST, clamp, cap, share)
    assert abs(rate) <= cap * share
    if abs(premium - INTEREST) <= clamp:
        free = INTEREST
    else:
        free = premium - math.copysign(clamp, premium - INTEREST)
    assume(abs(abs(free) - cap) > 1e-12)
    expected = free if abs(free) <= cap else math.copysign(cap, free)
    assert rate == pytest.approx(expected * share, abs=1e-15)


@law
@given(premiums, premiums)
def test_a_higher_premium_never_lowers_the_rate(a: float, b: float) -> None:
    low, high = sorted((a, b))
    rate_of = [funding.funding_rate(p, INTEREST, 0.0005, 0.03, 1.0) for p in (low, high)]
    assert rate_of[0] <= rate_of[1] + 1e-15


@law
@given(premiums)
def test_without_interest_it_is_deribits_damper(premium: float) -> None:
    """max(0.025%, P) + min(-0.025%, P): Deribit, "Funding Specifications"."""
    damped = max(0.00025, premium) + min(-0.00025, premium)
    rate = funding.funding_rate(premium, 0.0, 0.00025, 0.005, 1.0)
    assert rate == pytest.approx(min(max(damped, -0.005), 0.005), abs=1e-15)


def test_rate_of_an_unknown_premium_is_unknown() -> None:
    assert math.isnan(funding.funding_rate(math.nan, INTEREST, 0.0005, 0.03, 1.0))


@law
@given(signed(1e-3, 1e6), prices(), st.floats(-0.01, 0.01))
def test_what_a_long_pays_a_short_of_the_same_size_receives(
    quantity: float, price: float, rate: float
) -> None:
    paid = funding.funding_payment_usd(quantity, price, rate)
    assert paid == -funding.funding_payment_usd(-quantity, price, rate)
    assert paid == -funding.funding_payment_usd(quantity, price, -rate)
    assert paid * quantity * rate >= 0.0


def test_no_position_pays_nothing_even_without_a_price() -> None:
    assert funding.funding_payment_usd(0.0, math.nan, math.nan) == 0.0


@law
@given(premiums, st.floats(0.005, 0.5), st.floats(0.1, 1.0))
def test_no_venue_pays_beyond_its_cap(premium: float, initial: float, part: float) -> None:
    maintenance = initial * part
    for venue in rules.VENUES:
        cap = funding.funding_cap(venue.funding, initial, maintenance)
        rate = funding.rate_by_rule(venue.funding, premium, initial, maintenance)
        assert abs(rate) <= cap * venue.funding.share * (1 + 1e-12)
        if venue.funding.cap_times_gap:
            assert cap <= venue.funding.cap_times_gap * (initial - maintenance)
        if venue.funding.cap_times_maintenance:
            assert cap <= venue.funding.cap_times_maintenance * maintenance
