"""The venue's arithmetic, slow and obvious, in exact fractions.

Nothing here is shared with `exchange`: margin is added up tier by tier instead of through deductions, the
liquidation price is every exact root of a straight line, and sums go over plain tuples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

Tier = tuple[float, float]
"""Where the tier ends in dollars (math.inf: nowhere), and its rate."""
Leg = tuple[float, float, float, Sequence[Tier]]
"""Quantity, mark, cash leg in dollars, maintenance tiers."""
Holding = tuple[float, float, float, float]
"""Amount, price, collateral weight, liability weight."""


def exact(number: float | Fraction) -> Fraction:
    return number if isinstance(number, Fraction) else Fraction(number)


def margin(notional: float | Fraction, tiers: Sequence[Tier]) -> Fraction:
    """Each dollar pays the rate of the tier that it falls in; the last tier has no end."""
    size = abs(exact(notional))
    total = Fraction(0)
    start = Fraction(0)
    for number, (cap, rate) in enumerate(tiers):
        is_last = number + 1 == len(tiers)
        end = size if is_last or cap == math.inf else min(size, exact(cap))
        if end > start:
            total += (end - start) * exact(rate)
        if not is_last:
            start = exact(cap)
    return total


def equity(legs: Sequence[Leg], holdings: Sequence[Holding]) -> Fraction:
    total = sum((exact(amount) * exact(price) for amount, price, _, _ in holdings), Fraction(0))
    return total + sum((exact(q) * exact(mark) + exact(quote) for q, mark, quote, _ in legs), Fraction(0))


def collateral(legs: Sequence[Leg], holdings: Sequence[Holding]) -> Fraction:
    """Equity, with what is held of each asset counted at its weight."""
    lost = Fraction(0)
    for amount, price, weight, _ in holdings:
        if amount > 0:
            lost += exact(amount) * exact(price) * (1 - exact(weight))
    return equity(legs, holdings) - lost


def maintenance(legs: Sequence[Leg], holdings: Sequence[Holding]) -> Fraction:
    """Margin of the positions, and what borrowed assets count for beyond their value."""
    total = sum((margin(exact(q) * exact(mark), tiers) for q, mark, _, tiers in legs), Fraction(0))
    for amount, price, _, weight in holdings:
        if amount < 0:
            total += -exact(amount) * exact(price) * (exact(weight) - 1)
    return total


def gap(quantity: float, mark: float, buffer: float, tiers: Sequence[Tier], price: Fraction) -> Fraction:
    """Collateral less maintenance margin when this market alone stands at `price`."""
    moved = exact(quantity) * (price - exact(mark))
    before = margin(exact(quantity) * exact(mark), tiers)
    return exact(buffer) + moved - (margin(exact(quantity) * price, tiers) - before)


def liquidation_price(quantity: float, mark: float, buffer: float, tiers: Sequence[Tier]) -> Fraction | None:
    """The price above zero nearest to the mark at which the gap is zero, None where there is none.

    Between the prices at which the notional changes tier the gap is a straight line: through two points of
    each stretch, where does it cross zero?
    """
    size = abs(exact(quantity))
    edges = [Fraction(0)] + [exact(cap) / size for cap, _ in tiers[:-1]]
    ends: list[Fraction | None] = [*edges[1:], None]
    roots = []
    for start, end in zip(edges, ends, strict=True):
        beyond = end if end is not None else start + exact(mark) + 1
        low, high = (gap(quantity, mark, buffer, tiers, price) for price in (start, beyond))
        if low == high:
            continue
        root = start + (beyond - start) * low / (low - high)
        if root > 0 and root >= start and (end is None or root <= end):
            roots.append(root)
    return min(roots, key=lambda root: abs(root - exact(mark)), default=None)
