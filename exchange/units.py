"""Units of time, money and rates."""

from __future__ import annotations

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
HOUR_S = 3_600.0
DAY_S = 86_400.0
YEAR_S = 365.0 * DAY_S
"""Perpetuals trade every day of the year: annual volatilities use 365 days."""

BPS = 1e-4
PPM = 1_000_000
