"""One account's vector and figures at a time: the other half of the one definition.

`gather` copies an account out of the state, `emit` computes from the copy; neither changes the state,
so asking never matters. The vector's columns are described in `features.catalog`; figures are what
margin arithmetic needs beside it.

An isolated account is as many margin pools as it has positions: sums run over all of them, and what
says how close liquidation is (margin ratio, distance, buffer over sigma) is that of the worst pool.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from exchange.account import (
    asset_value_usd,
    haircut_usd,
    liability_margin_usd,
    liquidation_price,
    notional_usd,
    unrealised_usd,
)
from exchange.compiled import compiled
from exchange.contracts import tiered_margin_usd
from exchange.units import BPS, DAY_S, HOUR_US, SECOND_US
from features.depth import depth_within_usd, slippage_bps
from features.state import (
    BALANCES,
    CASH,
    ESTIMATORS,
    INITIAL_IN_FORCE,
    ISOLATED,
    MAINTENANCE_IN_FORCE,
    NOW,
    POSITIONS,
    Portfolio,
    State,
)
from features.structural import logit, mixed_hazards
from features.volatility import BIPOWER, HAR, PEGGED_VARIANCE, jump_share, slow_variance

CORRELATION = 0.75
"""Constant correlation between any two underlyings: what matters is that it is high."""

BOOK_LIFETIME_US = HOUR_US
"""Depth older than this is not known any more."""

FAR = 1_000.0
"""Bound of ratios: leverage without equity, distances without a liquidation price."""

# Figures: what margin arithmetic and fallbacks need beside the vector.
(
    EQUITY_USD,
    COLLATERAL_USD,
    INITIAL_MARGIN_USD,
    MAINTENANCE_MARGIN_USD,
    GROSS_NOTIONAL_USD,
    MARGIN_RATIO,
    BUFFER_OVER_SIGMA_DAY,
    SIGMA_DAY_USD,
    CLOSING_COST_USD,
    STATIC_INITIAL_RATE,
    STATIC_MAINTENANCE_RATE,
    FIGURE_INITIAL_IN_FORCE,
    FIGURE_MAINTENANCE_IN_FORCE,
    MARK_AGE_S,
    OPEN_POSITIONS,
) = range(15)
FIGURES = 15

# Volatility estimators that a pool's sigma is computed under; the first three are a row's half-lives.
_EWMA_1H, _EWMA_6H, _EWMA_48H, _HAR_VARIANCE, _MEAN_6H_48H, _SLOW = 0, 1, 2, 3, 4, 5

FEATURES = 30


@compiled
def gather(state: State, key: int, out: Portfolio) -> int:
    """Copy an account into `out`, funding settled; the number of open positions (quantity not 0)."""
    account = state.account[key]
    cash = account.cash
    n = 0
    opened = 0
    slot = account.first_position
    while slot >= 0:
        source = state.position[slot]
        row = out.position[n]
        due = 0.0
        if source.quantity != 0.0:
            due = source.quantity * (state.market[source.market].funding_paid - source.funding_mark)
            opened += 1
        cash -= due
        row.market = source.market
        row.quantity = source.quantity
        row.entry_price = source.entry_price
        row.quote = source.quote - due
        row.isolated_collateral = source.isolated_collateral
        n += 1
        slot = source.next
    out.count[POSITIONS] = n
    n = 0
    slot = account.first_balance
    while slot >= 0:
        out.balance[n].asset = state.balance[slot].asset
        out.balance[n].amount = state.balance[slot].amount
        n += 1
        slot = state.balance[slot].next
    out.count[BALANCES] = n
    out.count[ISOLATED] = account.isolated
    out.account[CASH] = cash
    out.account[INITIAL_IN_FORCE] = account.initial_in_force
    out.account[MAINTENANCE_IN_FORCE] = account.maintenance_in_force
    return opened


@compiled
def _variance(ewma: npt.NDArray[np.float64], series: npt.NDArray[np.float64], estimator: int) -> float:
    """Variance per second of one price under an estimator; NaN before the second bar."""
    if estimator == _HAR_VARIANCE:
        return series[HAR]
    if estimator == _MEAN_6H_48H:
        return 0.5 * (ewma[_EWMA_6H] + ewma[_EWMA_48H])
    if estimator == _SLOW:
        return slow_variance(ewma[_EWMA_48H])
    return ewma[estimator]


@compiled
def _asset_variance(ewma: npt.NDArray[np.float64], series: npt.NDArray[np.float64], estimator: int) -> float:
    """The same of an asset's price: a pegged one is not shrunk towards the volatility of a coin."""
    if estimator == _SLOW and ewma[_EWMA_48H] < PEGGED_VARIANCE:
        return ewma[_EWMA_48H]
    return _variance(ewma, series, estimator)


@compiled
def _pool_sigma(own_squares: float, total: float) -> float:
    """Sigma of a sum of exposures with one correlation, from the sum of squares and the plain sum."""
    return math.sqrt(max((1.0 - CORRELATION) * own_squares + CORRELATION * total * total, 0.0))


@compiled
def _over(value: float, scale: float) -> float:
    """value / scale kept within +-FAR; a scale of nothing puts it at the bound. NaN stays NaN."""
    if math.isnan(value) or math.isnan(scale):
        return math.nan
    if scale <= 0.0:
        return FAR if value > 0.0 else (-FAR if value < 0.0 else 0.0)
    return min(max(value / scale, -FAR), FAR)


@compiled
def _larger(a: float, b: float) -> float:
    """The larger; NaN if either is."""
    return math.nan if math.isnan(a) or math.isnan(b) else max(a, b)


@compiled
def _worse(a: float, b: float) -> float:
    """The smaller; NaN if either is, since an unknown pool may be the worst."""
    return math.nan if math.isnan(a) or math.isnan(b) else min(a, b)


@compiled
def _distance(market: np.void, position: np.void, buffer: float) -> float:
    """Adverse move of one mark alone, as a fraction, that uses up the buffer: 0 when it is used up.

    FAR where no price of that market can do it; NaN where the buffer is unknown.
    """
    if math.isnan(buffer) or math.isnan(market.mark):
        return math.nan
    if buffer <= 0.0:
        return 0.0
    price = liquidation_price(
        position.quantity,
        market.mark,
        buffer,
        market.tier_floor,
        market.maintenance_rate,
        market.maintenance_deduction,
    )
    move = (market.mark - price) / market.mark
    if position.quantity < 0.0:
        move = -move
    return min(move, FAR) if move > 0.0 else FAR


@compiled
def emit(
    state: State, folio: Portfolio, features: npt.NDArray[np.float64], figures: npt.NDArray[np.float64]
) -> None:
    """Write the vector (FEATURES columns) and the figures (FIGURES columns) of one portfolio at `NOW`.

    A column whose inputs are missing is NaN. Needs at least one open position.
    """
    now = state.clock[NOW]
    n = folio.count[POSITIONS]
    isolated = folio.count[ISOLATED] != 0

    # -- positions: notional, margins, what closing them takes
    gross = 0.0
    net = 0.0
    squares_of_notional = 0.0
    initial = 0.0
    maintenance = 0.0
    unrealised = 0.0
    carry_day = 0.0
    slippage_usd = 0.0
    closing_fees = 0.0
    spread = 0.0
    toward = 0.0
    over_depth = 0.0
    over_interest = 0.0
    jumps = 0.0
    oldest_mark = now
    opened = 0
    for i in range(n):
        position = folio.position[i]
        if position.quantity == 0.0:
            continue
        opened += 1
        market = state.market[position.market]
        notional = notional_usd(position.quantity, market.mark)
        size = abs(notional)
        oldest_mark = min(oldest_mark, market.mark_time)
        gross += size
        net += notional
        squares_of_notional += size * size
        initial += tiered_margin_usd(
            notional, market.tier_floor, market.initial_rate, market.initial_deduction
        )
        maintenance += tiered_margin_usd(
            notional, market.tier_floor, market.maintenance_rate, market.maintenance_deduction
        )
        unrealised += unrealised_usd(
            position.quantity, market.mark, -position.quantity * position.entry_price
        )
        carry_day += notional * market.funding_rate * DAY_S / market.funding_interval_s
        closing_fees += size * market.liquidation_fee_rate
        jumps += size * jump_share(market.variance[_EWMA_48H], market.series[BIPOWER])
        over_interest = _larger(over_interest, _over(size, market.open_interest))

        fresh = market.book_time >= 0 and now - market.book_time <= BOOK_LIFETIME_US
        if market.best_bid > market.best_ask:  # crossed: no depth is known then, nor a mid to measure from
            fresh = False
        levels = market.level_count if fresh else 0
        # A long is closed by selling into the bids.
        closing = market.bid_depth if position.quantity > 0.0 else market.ask_depth
        opposite = market.ask_depth if position.quantity > 0.0 else market.bid_depth
        within = depth_within_usd(100.0, market.distance, closing, levels)
        against = depth_within_usd(100.0, market.distance, opposite, levels)
        slippage_usd += size * slippage_bps(size, market.distance, closing, levels) * BPS
        over_depth = _larger(over_depth, _over(size, within))
        toward += size * (within - against) / (within + against)
        mid = 0.5 * (market.best_bid + market.best_ask)
        spread += size * ((market.best_ask - market.best_bid) / mid / BPS if fresh else math.nan)

    position_maintenance = maintenance

    # -- balances: value, haircuts and their own risk
    cash = folio.account[CASH]
    value = 0.0
    haircut = 0.0
    liability = 0.0
    for i in range(folio.count[BALANCES]):
        balance = folio.balance[i]
        asset = state.asset[balance.asset]
        value += asset_value_usd(balance.amount, asset.price)
        haircut += haircut_usd(balance.amount, asset.price, asset.collateral_weight)
        liability += liability_margin_usd(balance.amount, asset.price, asset.liability_weight)

    # -- pools: equity behind the positions, the worst pool's nearness to liquidation
    worst_ratio = FAR
    worst_distance = FAR
    own = folio.work[0]  # sum of squared exposures under each estimator
    total = folio.work[1]  # their plain sum
    nearness = folio.work[2]  # buffer over sigma a day of the worst pool
    own[:] = 0.0
    total[:] = 0.0
    nearness[:] = FAR
    absolute = 0.0
    for i in range(n):
        position = folio.position[i]
        if position.quantity == 0.0:
            continue
        market = state.market[position.market]
        notional = notional_usd(position.quantity, market.mark)
        for e in range(ESTIMATORS):
            exposure = notional * math.sqrt(_variance(market.variance, market.series, e))
            own[e] += exposure * exposure
            total[e] += exposure
        absolute += abs(notional) * math.sqrt(_variance(market.variance, market.series, _EWMA_6H))
    day = math.sqrt(DAY_S)
    if isolated:
        equity = 0.0
        for i in range(n):
            position = folio.position[i]
            if position.quantity == 0.0:
                continue
            market = state.market[position.market]
            notional = notional_usd(position.quantity, market.mark)
            needed = tiered_margin_usd(
                notional, market.tier_floor, market.maintenance_rate, market.maintenance_deduction
            )
            pool = position.isolated_collateral + unrealised_usd(
                position.quantity, market.mark, position.quote
            )
            equity += pool
            worst_ratio = _worse(worst_ratio, _over(pool, needed))
            worst_distance = _worse(worst_distance, _distance(market, position, pool - needed))
            for e in range(ESTIMATORS):
                sigma = abs(notional) * math.sqrt(_variance(market.variance, market.series, e))
                nearness[e] = _worse(nearness[e], _over(pool - needed, sigma * day))
        haircut = 0.0  # free balances stand behind no position
        collateral = equity
    else:
        equity = cash + net + value
        collateral = equity - haircut
        maintenance += liability
        worst_ratio = _over(collateral, maintenance)
        for i in range(n):
            position = folio.position[i]
            if position.quantity != 0.0:
                move = _distance(state.market[position.market], position, collateral - maintenance)
                worst_distance = _worse(worst_distance, move)
        for i in range(folio.count[BALANCES]):
            balance = folio.balance[i]
            asset = state.asset[balance.asset]
            if balance.amount == 0.0 or (asset.price_time < 0 and not math.isnan(asset.price)):
                continue  # a dollar that never had a price does not move
            weight = asset.collateral_weight if balance.amount > 0.0 else asset.liability_weight
            worth = balance.amount * asset.price * weight
            for e in range(ESTIMATORS):
                exposure = worth * math.sqrt(_asset_variance(asset.variance, asset.series, e))
                own[e] += exposure * exposure
                total[e] += exposure
            absolute += abs(worth) * math.sqrt(_asset_variance(asset.variance, asset.series, _EWMA_6H))
        for e in range(ESTIMATORS):
            nearness[e] = _over(collateral - maintenance, _pool_sigma(own[e], total[e]) * day)

    sigma_1h = _pool_sigma(own[_EWMA_1H], total[_EWMA_1H])
    sigma_6h = _pool_sigma(own[_EWMA_6H], total[_EWMA_6H])
    sigma_48h = _pool_sigma(own[_EWMA_48H], total[_EWMA_48H])
    sigma_day = _pool_sigma(own[_MEAN_6H_48H], total[_MEAN_6H_48H]) * day
    both = nearness[_MEAN_6H_48H]

    slow = nearness[_SLOW]
    hazard_1h, hazard_8h, hazard_24h = mixed_hazards(slow)

    features[0] = _over(gross, equity)
    features[1] = _over(abs(net), equity)
    features[2] = worst_ratio
    features[3] = _over(initial, collateral)
    features[4] = (collateral - maintenance) / gross
    features[5] = worst_distance
    features[6] = squares_of_notional / (gross * gross)
    features[7] = _over(carry_day, equity)
    features[8] = _over(unrealised, equity)
    features[9] = _over(haircut, equity)
    features[10] = math.log10(max(equity, 0.01)) if not math.isnan(equity) else math.nan
    features[11] = both
    features[12] = nearness[_EWMA_1H]
    features[13] = nearness[_EWMA_6H]
    features[14] = nearness[_EWMA_48H]
    features[15] = nearness[_HAR_VARIANCE]
    features[16] = slow
    features[17] = sigma_day / gross
    features[18] = math.log(max(sigma_1h, 1e-12 * gross) / max(sigma_48h, 1e-12 * gross))
    features[19] = jumps / gross
    features[20] = _over(sigma_6h, absolute)
    features[21] = logit(hazard_1h)
    features[22] = logit(hazard_8h)
    features[23] = logit(hazard_24h)
    features[24] = spread / gross
    features[25] = slippage_usd / gross / BPS
    features[26] = _over(slippage_usd, collateral - maintenance)
    features[27] = over_depth
    features[28] = toward / gross
    features[29] = over_interest

    figures[EQUITY_USD] = equity
    figures[COLLATERAL_USD] = collateral
    figures[INITIAL_MARGIN_USD] = initial
    figures[MAINTENANCE_MARGIN_USD] = maintenance
    figures[GROSS_NOTIONAL_USD] = gross
    figures[MARGIN_RATIO] = worst_ratio
    figures[BUFFER_OVER_SIGMA_DAY] = both
    figures[SIGMA_DAY_USD] = sigma_day
    figures[CLOSING_COST_USD] = slippage_usd + closing_fees
    figures[STATIC_INITIAL_RATE] = initial / gross
    figures[STATIC_MAINTENANCE_RATE] = position_maintenance / gross
    figures[FIGURE_INITIAL_IN_FORCE] = folio.account[INITIAL_IN_FORCE]
    figures[FIGURE_MAINTENANCE_IN_FORCE] = folio.account[MAINTENANCE_IN_FORCE]
    figures[MARK_AGE_S] = (now - oldest_mark) / SECOND_US if oldest_mark >= 0 else math.nan
    figures[OPEN_POSITIONS] = opened


@compiled
def emit_open(
    state: State,
    accounts: int,
    folio: Portfolio,
    ids: npt.NDArray[np.int64],
    features: npt.NDArray[np.float64],
    figures: npt.NDArray[np.float64],
) -> int:
    """Vectors of every account among the first `accounts` that has an open position; their number.

    `ids`, `features` and `figures` have a row for each of them, in rising id order; rows beyond their
    length are counted but not written.
    """
    rows = 0
    for key in range(accounts):
        if gather(state, key, folio) == 0:
            continue
        if rows < len(ids):
            ids[rows] = key
            emit(state, folio, features[rows], figures[rows])
        rows += 1
    return rows
