"""Contract terms for archives that hold prices and no terms, and how a file gives others.

Tick and lot come from the decimals that prices and quantities show. Fees and margin tiers are assumed:

- taker fee 0.05%, Binance's for USD-margined contracts without a discount;
- liquidation fee 1.25%, of the size of Binance's liquidation clearance fee;
- funding every eight hours where no funding rates are there to tell;
- tiers of Binance's announcement of 18 March 2021: those of BTCUSDT for bitcoin and ether, those of the
  contracts with 50x, its smallest, for all others. Tables in force later are not published with the archives.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exchange.contracts import MarginTier, Market
from exchange.errors import InputError
from features.tables import TABLES
from pipelines.damage import shown

TAKER_FEE_RATE = 0.0005
LIQUIDATION_FEE_RATE = 0.0125
FUNDING_INTERVAL_S = 28_800
MAJORS = tuple(f"{coin}{dollar}" for coin in ("BTC", "ETH") for dollar in ("USDT", "USDC", "BUSD", "FDUSD"))
ALL_OTHERS = "*"

_MAJOR = (
    (50e3, 0.008, 0.004), (250e3, 0.01, 0.005), (1e6, 0.02, 0.01), (10e6, 0.05, 0.025), (20e6, 0.1, 0.05),
    (50e6, 0.2, 0.1), (100e6, 0.25, 0.125), (200e6, 0.333, 0.15), (300e6, 0.5, 0.25), (math.inf, 1.0, 0.5),
)  # fmt: skip
_OTHER = (
    (5e3, 0.02, 0.01), (25e3, 0.05, 0.025), (100e3, 0.1, 0.05), (250e3, 0.2, 0.1), (1e6, 0.5, 0.125),
    (math.inf, 1.0, 0.5),
)  # fmt: skip
_GIVEN = tuple(column.name for column in TABLES["markets"].columns if column.name not in ("time", "market"))

Given = Mapping[str, Mapping[str, Any]]


def assumed(market: str, tick_size: float, lot_size: float, funding_interval_s: int | None) -> dict[str, Any]:
    """Columns of `markets` but the time, from what can be seen and what has to be assumed."""
    tiers = _MAJOR if market in MAJORS else _OTHER
    return {
        "market": market,
        "tick_size": tick_size,
        "lot_size": lot_size,
        "taker_fee_rate": TAKER_FEE_RATE,
        "liquidation_fee_rate": LIQUIDATION_FEE_RATE,
        "funding_interval_s": FUNDING_INTERVAL_S if funding_interval_s is None else funding_interval_s,
        "tiers": [
            {
                "notional_cap_usd": None if math.isinf(cap) else cap,
                "initial_margin_rate": initial,
                "maintenance_margin_rate": maintenance,
            }
            for cap, initial, maintenance in tiers
        ],
    }


def given_for(market: str, given: Given) -> Mapping[str, Any]:
    """What a file of terms says of a market: the entry of its name on top of the one for all others."""
    return {**given.get(ALL_OTHERS, {}), **given.get(market, {})}


def checked_terms(terms: dict[str, Any], file: Path | None) -> dict[str, Any]:
    """The same terms, held to what a contract's terms must be; InputError naming the file."""
    try:
        tiers = []
        for number, tier in enumerate(terms["tiers"]):
            if not isinstance(tier, dict) or "initial_margin_rate" not in tier or len(tier) > 3:
                raise InputError(f"tier {number} must be {_TIER}, not {shown(tier)}")
            cap = tier.get("notional_cap_usd")
            tiers.append(
                MarginTier(
                    math.inf if cap is None else cap,
                    tier["initial_margin_rate"],
                    tier.get("maintenance_margin_rate", math.nan),
                )
            )
        interval_s = terms["funding_interval_s"]
        if type(interval_s) is not int:
            raise InputError(f"funding_interval_s must be a whole number of seconds, not {shown(interval_s)}")
        tick, lot, taker_fee, liquidation_fee = (terms[name] for name in _GIVEN[:4])
        Market(terms["market"], tick, lot, taker_fee, liquidation_fee, interval_s, tuple(tiers))
    except InputError as error:
        raise InputError(f"{file}: {error}" if file else str(error)) from None
    return terms


_TIER = '{"notional_cap_usd": number or null, "initial_margin_rate": ..., "maintenance_margin_rate": ...}'


def read_terms(file: Path | None) -> Given:
    """Terms by market from a JSON object of objects; nothing where no file is given. Raises InputError."""
    if file is None:
        return {}
    try:
        value = json.loads(file.read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({(error.strerror or str(error)).lower()})") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{file}: is not JSON ({error.msg}, line {error.lineno})") from None
    except (ValueError, RecursionError):
        raise InputError(f"{file}: is not JSON in UTF-8") from None
    if not isinstance(value, dict):
        raise InputError(f"{file}: must be an object of markets, not {shown(value)}")
    for market, terms in value.items():
        if not isinstance(terms, dict):
            raise InputError(f"{file}: {shown(market)}: must be an object, not {shown(terms)}")
        unknown = sorted(set(terms) - set(_GIVEN))
        if unknown:
            raise InputError(f"{file}: {shown(market)}: {unknown[0]} is none of {', '.join(_GIVEN)}")
        if not isinstance(terms.get("tiers", []), list):
            raise InputError(f"{file}: {shown(market)}: tiers must be a list, not {shown(terms['tiers'])}")
    return value
