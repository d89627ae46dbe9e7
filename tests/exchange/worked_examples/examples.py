"""What the examples of all venues are written in: markets by their margin rates, money to the cent."""

from __future__ import annotations

import math

import pytest

from exchange.contracts import MarginTier, Market

CENT = 0.005


def cents(value: float) -> object:
    """Equal to the cent, as a document prints it."""
    return pytest.approx(value, abs=CENT)


def market(
    initial_rate: float,
    maintenance_rate: float,
    *,
    taker_fee_rate: float = 0.0,
    tick_size: float = 0.01,
) -> Market:
    """One tier without end."""
    tiers = (MarginTier(math.inf, initial_rate, maintenance_rate),)
    return Market("X", tick_size, 1e-9, taker_fee_rate, 0.0, 3_600, tiers)


def tiered(*rows: tuple[float, float, float]) -> Market:
    """Rows of (notional cap, greatest leverage, maintenance rate in percent), as venues print them."""
    tiers = tuple(MarginTier(cap, 1 / leverage, percent / 100) for cap, leverage, percent in rows)
    return Market("X", 0.01, 1e-9, 0.0, 0.0, 3_600, tiers)
