"""What an account is exposed to: dollars by underlying, since a coin held against its own short is no risk.

The balance of an asset, haircut taken, counts with the positions in markets of the same underlying.
"""

from __future__ import annotations

import hashlib

import numpy as np

from exchange.account import notional_usd
from exchange.compiled import lean
from features.state import BALANCES, POSITIONS, Portfolio, State


def underlying_of(name: str) -> str:
    """What a market's name says it is about: `SOL` of `SOL-PERP`, `SOL/USDT:USDT` or `SOLUSDT`."""
    for mark in "-/_:":
        name = name.split(mark, maxsplit=1)[0]
    for quote in ("USDT", "USDC", "USD", "PERP"):
        if name.endswith(quote) and len(name) > len(quote):
            return name.removesuffix(quote)
    return name


def underlying_number(name: str) -> int:
    """A number of the underlying: the same for the same, whenever and in whatever order names come up."""
    return int.from_bytes(hashlib.sha256(underlying_of(name).encode()).digest()[:7])


@lean
def balance_worth_usd(balance: np.void, asset: np.void) -> float:
    """A balance at its price as far as it counts: haircut taken, a debt with its extra margin."""
    weight = asset.collateral_weight if balance.amount > 0.0 else asset.liability_weight
    return balance.amount * asset.price * weight


@lean
def stands_for(state: State, folio: Portfolio, place: int) -> bool:
    """Whether the position at `place` is the first open one in its underlying."""
    underlying = state.market[folio.position[place].market].underlying
    for i in range(place):
        position = folio.position[i]
        if position.quantity != 0.0 and state.market[position.market].underlying == underlying:
            return False
    return True


@lean
def netted_usd(state: State, folio: Portfolio, place: int) -> float:
    """Signed dollars in the underlying that the position at `place` stands for: positions and balances."""
    underlying = state.market[folio.position[place].market].underlying
    dollars = 0.0
    for i in range(place, folio.count[POSITIONS]):
        position = folio.position[i]
        market = state.market[position.market]
        if position.quantity != 0.0 and market.underlying == underlying:
            dollars += notional_usd(position.quantity, market.mark)
    for i in range(folio.count[BALANCES]):
        balance = folio.balance[i]
        asset = state.asset[balance.asset]
        if balance.amount != 0.0 and asset.underlying == underlying:
            dollars += balance_worth_usd(balance, asset)
    return dollars


@lean
def is_hedging(state: State, folio: Portfolio, underlying: int) -> bool:
    """Whether an open position is in this underlying."""
    for i in range(folio.count[POSITIONS]):
        position = folio.position[i]
        if position.quantity != 0.0 and state.market[position.market].underlying == underlying:
            return True
    return False
