"""Statistics of one run of a venue: what is held against the facts.

Each is a number from a `Record`; NaN where the run does not hold what it needs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from exchange.book import DEPTH_AT
from exchange.simulation.record import Flags, Floats, Record, Whole, day_key
from exchange.simulation.state import DELEVERAGE, DELEVERAGED, LIQUIDATED, LIQUIDATION, NEGATIVE, TRADE
from exchange.units import DAY_US, HOUR_US, SECOND_US

NAN = float("nan")
CASCADE_GAP_S = 60
"""Forced orders of one market that follow each other sooner than this are one cascade."""
CRASH_US = 3 * HOUR_US
"""From the beginning of a shock, in which lows and the thinnest books are looked for."""
BEFORE_US = 4 * HOUR_US
"""Before a shock, in which books are as they usually are."""


# ---- accounts at midnight


def leverage_quantile(run: Record, share: float) -> float:
    """Quantile of gross notional over equity of traders with positions and equity."""
    book = run.midnights
    good = book.equity > 0.0
    return _quantile(book.gross[good] / book.equity[good], share)


def equity_quantile(run: Record, share: float) -> float:
    """Quantile of equity of traders with positions, dollars."""
    return _quantile(run.midnights.equity, share)


def wealth_tail_index(run: Record, top: float = 0.05) -> float:
    """Hill's estimate on the richest `top` of traders with positions, the median over midnights."""
    found = []
    for time in np.unique(run.midnights.time):
        equity = np.sort(run.midnights.equity[run.midnights.time == time])[::-1]
        count = int(top * len(equity))
        if count >= 5 and equity[count] > 0.0:
            found.append(1.0 / np.mean(np.log(equity[:count] / equity[count])))
    return float(np.median(found)) if found else NAN


def liquidated_within_a_day(run: Record, low: float, high: float) -> float:
    """Share of traders whose forced closing begins in the day after a midnight with collateral over
    maintenance from `low` up to `high`; only days that the run holds whole."""
    book = run.midnights
    with np.errstate(divide="ignore"):
        ratio = book.collateral / book.maintenance
    asked = (ratio >= low) & (ratio < high) & (book.time + DAY_US <= run.end_us)
    begun = run.events.kind == LIQUIDATED
    happened = np.unique(day_key(run.events.time[begun] - 1, run.events.account[begun]))
    hit = np.isin(day_key(book.time[asked], book.account[asked]), happened)
    return float(hit.mean()) if len(hit) else NAN


# ---- forced orders


class Orders(NamedTuple):
    """Forced orders, one row each, in the order of time; `second` since the epoch."""

    second: Whole
    account: Whole
    market: Whole
    usd: Floats
    long: Flags
    """Whether a long was closed."""


def forced_orders(run: Record, market: int | None = None) -> Orders:
    """Liquidation fills of one account in one market at one price in one second are one order."""
    fills = run.fills
    chosen = fills.kind == LIQUIDATION
    if market is not None:
        chosen &= fills.market == market
    second = fills.time[chosen] // SECOND_US
    account, where, price = fills.account[chosen], fills.market[chosen], fills.price[chosen]
    quantity = fills.quantity[chosen]
    order = np.lexsort((price, where, account, second))
    second, account, where, price = second[order], account[order], where[order], price[order]
    quantity = quantity[order]
    new = np.ones(len(second), bool)
    if len(second):
        new[1:] = (
            (np.diff(second) != 0) | (np.diff(account) != 0) | (np.diff(where) != 0) | (np.diff(price) != 0)
        )
    begins = np.flatnonzero(new)
    usd = np.add.reduceat(np.abs(quantity) * price, begins) if len(begins) else np.zeros(0)
    return Orders(second[begins], account[begins], where[begins], usd, quantity[begins] < 0.0)


def order_size_quantile(orders: Orders, share: float) -> float:
    """Quantile of the size of forced orders, dollars."""
    return _quantile(orders.usd, share)


def without_shock(run: Record, orders: Orders) -> Orders:
    """The orders of a run but those of the day from its shock on."""
    time_us = orders.second * SECOND_US
    kept = ~_between(time_us, run.shock_us, run.shock_us + DAY_US) if run.shock_us >= 0 else time_us >= 0
    return Orders(
        orders.second[kept], orders.account[kept], orders.market[kept], orders.usd[kept], orders.long[kept]
    )


def follows_within(orders: Orders, seconds: int, gap_s: float = np.inf) -> float:
    """Of orders that come less than `gap_s` after the last, the share that come within `seconds`."""
    gaps = np.diff(orders.second)
    gaps = gaps[gaps < gap_s]
    return float((gaps <= seconds).mean()) if len(gaps) else NAN


class Cascades(NamedTuple):
    """Runs of forced orders of one market in which each comes less than `CASCADE_GAP_S` after the last."""

    orders: Whole
    duration_s: Whole
    close_by: Whole
    """Orders that come within a second of the last."""


def cascades(orders: Orders, gap_s: int = CASCADE_GAP_S, least: int = 2) -> Cascades:
    """Runs of at least `least` orders; orders that stay alone are no cascade."""
    order = np.lexsort((orders.second, orders.market))
    second, market = orders.second[order], orders.market[order]
    if not len(second):
        return Cascades(*(np.zeros(0, np.int64) for _ in Cascades._fields))
    gaps = np.diff(second)
    cut = np.flatnonzero((gaps >= gap_s) | (np.diff(market) != 0)) + 1
    begins, ends = np.concatenate([[0], cut]), np.concatenate([cut, [len(second)]])
    near = np.concatenate([[0], np.cumsum(gaps <= 1)])
    counts = ends - begins
    kept = counts >= least
    begins, ends = begins[kept], ends[kept]
    return Cascades(counts[kept], second[ends - 1] - second[begins], near[ends - 1] - near[begins])


def forced_share_by_day(run: Record) -> Floats:
    """Notional closed by force in each day of the run over its mean open interest, all markets together."""
    orders = forced_orders(run)
    day = (orders.second * SECOND_US - run.start_us) // DAY_US
    days = max(int((run.end_us - run.start_us) // DAY_US), 1)
    whole = day < days
    forced = np.bincount(day[whole], orders.usd[whole], days)
    bar_day = (run.bars.time - run.start_us) // DAY_US
    total = run.bars.open_interest.sum(axis=1)
    mean = np.array([total[bar_day == d].mean() if (bar_day == d).any() else NAN for d in range(days)])
    return np.asarray(forced / mean)


def forced_share(run: Record, begin_us: int, end_us: int) -> float:
    """Notional closed by force between two times over the mean open interest in them."""
    orders = forced_orders(run)
    within = _between(orders.second * SECOND_US, begin_us, end_us)
    bars = _between(run.bars.time, begin_us, end_us)
    if not bars.any():
        return NAN
    return float(orders.usd[within].sum() / run.bars.open_interest[bars].sum(axis=1).mean())


# ---- books and prices


def depth_left(run: Record) -> Floats:
    """By market, least depth within 1% in the hours after a shock over its median in the hours before."""
    bars = run.bars
    before = _between(bars.time, run.shock_us - BEFORE_US, run.shock_us)
    after = _between(bars.time, run.shock_us, run.shock_us + CRASH_US)
    if run.shock_us < 0 or not before.any() or not after.any():
        return np.full(bars.depth.shape[1], NAN)
    visible = np.maximum(DEPTH_AT - 0.5 * bars.spread, 0.0) / DEPTH_AT * bars.depth
    return np.asarray(np.nanmin(visible[after], axis=0) / np.nanmedian(visible[before], axis=0))


def widest_spread(run: Record) -> Floats:
    """By market, widest spread in the hours after a shock, fraction of the mid."""
    after = _between(run.bars.time, run.shock_us, run.shock_us + CRASH_US)
    if run.shock_us < 0 or not after.any():
        return np.full(run.bars.spread.shape[1], NAN)
    return np.asarray(np.nanmax(run.bars.spread[after], axis=0))


def calm_returns(run: Record, minutes: int = 1) -> Floats:
    """Log returns of marks, [times, markets], up to a shock or else of the whole run."""
    bars = run.bars
    last = len(bars.time)
    if run.shock_us >= 0:
        last = int(np.searchsorted(bars.time, run.shock_us))
    return np.asarray(np.diff(np.log(bars.close[:last:minutes]), axis=0))


def kurtosis(returns: Floats) -> float:
    """Fourth moment over the squared second, the median over markets; 3 for a normal."""
    if len(returns) < 100:
        return NAN
    y = returns - returns.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.nanmedian((y**4).mean(axis=0) / (y**2).mean(axis=0) ** 2))


def absolute_autocorrelation(returns: Floats, lag: int) -> float:
    """Of absolute returns with those `lag` rows earlier, the median over markets."""
    if len(returns) < 4 * lag + 100:
        return NAN
    y = np.abs(returns)
    y = y - y.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.nanmedian((y[lag:] * y[:-lag]).mean(axis=0) / (y**2).mean(axis=0)))


def mean_correlation(returns: Floats) -> float:
    """Between markets."""
    if len(returns) < 100 or returns.shape[1] < 2:
        return NAN
    above = np.triu_indices(returns.shape[1], 1)
    return float(np.asarray(np.corrcoef(returns.T))[above].mean())


def arrival_branching(run: Record, window_s: int = 600) -> float:
    """Branching ratio of taker trades before a shock, by the counts' mean and variance in windows
    (Hardiman and Bouchaud 2014: 1 - sqrt(mean / variance)), the median over markets with 10 a window."""
    end_us = run.shock_us if run.shock_us >= 0 else run.end_us
    chosen = (run.fills.kind == TRADE) & run.trader[run.fills.account] & (run.fills.time < end_us)
    windows = int((end_us - run.start_us) // (window_s * SECOND_US))
    found = []
    for market in range(run.bars.close.shape[1]):
        second = np.unique(run.fills.time[chosen & (run.fills.market == market)] // SECOND_US)
        window = (second * SECOND_US - run.start_us) // (window_s * SECOND_US)
        counts = np.bincount(window[(window >= 0) & (window < windows)], minlength=windows)
        if windows >= 50 and counts.mean() >= 1.0:
            found.append(1.0 - np.sqrt(min(counts.mean() / counts.var(), 1.0)))
    return float(np.median(found)) if found else NAN


# ---- a shock


class Shock(NamedTuple):
    """What a shock did until `CRASH_US` after it began; NaN where nothing of the kind happened."""

    liquidated_usd: float
    """Notional closed by force, deleveraged part included."""
    deleveraged_usd: float
    """Notional of winners closed."""
    liquidated_accounts: int
    deleveraged_accounts: int
    negative_accounts: int
    deficit_usd: float
    """Losers' losses beyond their equity."""
    first_deleveraging_s: float
    """After the first liquidation of the shock."""
    peaks_apart_s: float
    """Between the seconds in which most was liquidated and most deleveraged."""
    long_share: float
    """Of longs in liquidated notional."""
    mean_fall: float
    """Mean over markets of the fall of the mark from the beginning to its low."""
    liquidated_over_open: float
    liquidated_over_equity: float
    """Over the equity of traders with positions at the last midnight."""
    open_interest_fall: float
    """Of open interest in units, from the beginning to its lowest."""
    voluntary_share: float
    """Part that was not forced of what traders' positions shrank by, at the prices of the beginning."""


def shock(run: Record) -> Shock | None:
    """Measures of the run's shock; None without one."""
    if run.shock_us < 0:
        return None
    begin, end = run.shock_us, run.shock_us + CRASH_US
    orders = forced_orders(run)
    now = _between(orders.second * SECOND_US, begin, end)
    liquidated = float(orders.usd[now].sum())
    lost = (run.fills.kind == DELEVERAGE) & _between(run.fills.time, begin, end)
    size = np.abs(run.fills.quantity[lost]) * run.fills.price[lost]
    deleveraged = float(size.sum())
    events = run.events
    recent = _between(events.time, begin, end)
    first = _first(events.time[recent & (events.kind == LIQUIDATED)])
    answered = _first(events.time[recent & (events.kind == DELEVERAGED)])
    bars = run.bars
    at = min(int(np.searchsorted(bars.time, begin)), len(bars.time) - 1)
    after = _between(bars.time, begin, end)
    low = np.nanmin(bars.low[after], axis=0) if after.any() else bars.low[at]
    open_usd = bars.open_interest[at].sum()
    lots = bars.open_interest / bars.close
    worth = lots[after] @ bars.close[at] if after.any() else np.array([open_usd])
    fallen, forced = _exposure_lost(run, bars.close[at], begin, end)
    midnights = run.midnights
    last = midnights.time[midnights.time <= begin].max(initial=-1)
    equity = midnights.equity[midnights.time == last].sum()
    return Shock(
        liquidated_usd=liquidated,
        deleveraged_usd=deleveraged,
        liquidated_accounts=len(np.unique(events.account[recent & (events.kind == LIQUIDATED)])),
        deleveraged_accounts=len(np.unique(events.account[recent & (events.kind == DELEVERAGED)])),
        negative_accounts=len(np.unique(events.account[recent & (events.kind == NEGATIVE)])),
        deficit_usd=float(events.shortfall[recent & (events.kind == NEGATIVE)].sum()),
        first_deleveraging_s=(answered - first) / SECOND_US,
        peaks_apart_s=abs(
            _peak(orders.second[now], orders.usd[now]) - _peak(run.fills.time[lost] // SECOND_US, size)
        ),
        long_share=_ratio(float(orders.usd[now & orders.long].sum()), liquidated),
        mean_fall=float(np.mean(1.0 - low / bars.close[at])),
        liquidated_over_open=_ratio(liquidated, float(open_usd)),
        liquidated_over_equity=_ratio(liquidated, float(equity)),
        open_interest_fall=1.0 - _ratio(float(worth.min()), float(open_usd)),
        voluntary_share=1.0 - _ratio(forced, fallen) if fallen > 0.0 else NAN,
    )


def _exposure_lost(run: Record, prices: Floats, begin_us: int, end_us: int) -> tuple[float, float]:
    """By how much traders' positions shrank between two times until they were smallest, and how much of that
    was forced (liquidated or deleveraged); at given prices."""
    fills, held = run.fills, run.holdings
    kept = run.trader[fills.account] & (fills.time < end_us)
    mine = run.trader[held.account]
    begun = np.full(int(mine.sum()), run.start_us)
    time = np.concatenate([begun, fills.time[kept]])
    account = np.concatenate([held.account[mine], fills.account[kept]])
    market = np.concatenate([held.market[mine], fills.market[kept]])
    change = np.concatenate([held.quantity[mine], fills.quantity[kept]])
    forced = np.concatenate([np.zeros(len(begun), bool), fills.kind[kept] != TRADE])
    order = np.lexsort((time, market, account))
    time, account, market = time[order], account[order], market[order]
    change, forced = change[order], forced[order]
    new = np.ones(len(time), bool)
    new[1:] = (np.diff(account) != 0) | (np.diff(market) != 0)
    running = np.cumsum(change)
    before = running - change
    group = np.cumsum(new) - 1
    position = running - before[new][group] if len(new) else running
    grown = (np.abs(position) - np.abs(position - change)) * prices[market]
    now = time >= begin_us
    when = np.argsort(time[now], kind="stable")
    total = np.cumsum(grown[now][when])
    if not len(total) or total.min() >= 0.0:
        return 0.0, 0.0
    least = int(np.argmin(total))
    return float(-total[least]), float(-(grown * forced)[now][when][: least + 1].sum())


def _between(time_us: Whole, begin_us: int, end_us: int) -> Flags:
    return np.asarray((time_us >= begin_us) & (time_us < end_us))


def _first(time_us: Whole) -> float:
    return float(time_us.min()) if len(time_us) else NAN


def _peak(second: Whole, usd: Floats) -> float:
    """The second with the greatest sum."""
    if not len(second):
        return NAN
    first = int(second.min())
    return float(first + np.argmax(np.bincount(second - first, usd)))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0.0 else NAN


def _quantile(values: Floats, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else NAN
