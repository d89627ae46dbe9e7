"""Every feature and figure of one account, slow and obvious, from the list of rows up to a moment.

Nothing of this oracle is shared with `features` but the numbers of the kinds and the names of the columns:
`replay_oracle` tells the rows again, `account_oracle` takes an account apart, `venue_oracle` looks at all of
them together, `market_oracle` knows one price and one book.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from features import events as kinds
from tests.oracle.account_oracle import DAY_S, FAR, NAN, Look, Names, largest, over, smallest
from tests.oracle.market_oracle import (
    bounded,
    decayed,
    depth_at,
    jump_share,
    logit_of,
    passage,
    sigma,
    slippage_bps,
)
from tests.oracle.replay_oracle import DAY, HOUR, SECOND, Book, Market, Row, World
from tests.oracle.venue_oracle import (
    FADE_US,
    REACH,
    Sweeps,
    best_equity,
    log_distance,
    lowest_ratio,
    remaining,
    told,
    usual_equity,
)

__all__ = ["Answer", "Names", "Row", "answer", "answers"]


class Answer(NamedTuple):
    features: dict[str, float]
    figures: dict[str, float]
    moved_usd: float
    """What rounding of the dollars is relative to."""


def answers(rows: Sequence[Row], names: Names) -> dict[int, Answer]:
    """Features and figures by name at the time of the newest row, by account with an open position."""
    world, sweeps = told(list(rows), names)
    found = {}
    for key in sorted(world.accounts):
        if world.accounts[key].open:
            found[key] = _answer(Look(world, world.accounts[key], names), sweeps)
    return found


def answer(rows: Sequence[Row], account: int, names: Names) -> Answer | None:
    """Those of one account; None without an open position."""
    return answers(rows, names).get(account)


def _answer(look: Look, sweeps: Sweeps) -> Answer:
    books = Books(look)
    features = (
        leverage(look, books)
        | volatility(look, books, sweeps)
        | order_book(look, books)
        | pressure(look, books, sweeps)
        | behaviour(look)
        | venue(look, sweeps)
    )
    return Answer(features, figures(look, books), look.account.moved)


# ---- leverage


def leverage(look: Look, books: Books) -> dict[str, float]:
    gross, equity = look.gross, look.equity
    carry = 0.0
    for m, market in look.markets.items():
        rate = market.funding[-1][1] if market.funding else NAN
        carry += look.notional[m] * rate * DAY_S / market.terms[4]
    unrealised = sum(p.quantity * (look.markets[m].mark - p.entry) for m, p in look.held.items())
    basis = sum(
        look.notional[m] * (market.mark / market.bars[-1].index - 1.0) if market.bars else NAN
        for m, market in look.markets.items()
    )
    closing = books.slippage_usd(1.0) + sum(look.closing_fee.values())
    return {
        "effective_leverage": over(gross, equity),
        "net_leverage": over(abs(sum(look.notional.values())), equity),
        "margin_ratio": look.ratio,
        "initial_margin_use": over(look.initial, look.collateral),
        "buffer_over_notional": look.buffer / gross,
        "distance_to_liquidation": smallest(list(look.distances.values())),
        "concentration": sum((size / gross) ** 2 for size in look.size.values()),
        "funding_carry_day": over(carry, equity),
        "unrealised_return": over(unrealised, equity),
        "haircut_share": over(look.haircut, equity),
        "log_equity": NAN if math.isnan(equity) else math.log10(max(equity, 0.01)),
        "effective_buffer_over_notional": look.shown / gross,
        "cushion_over_closing_cost": over(sum(look.needed.values()), closing),
        "long_share": sum(max(dollars, 0.0) for dollars in look.notional.values()) / gross,
        "volatile_collateral_share": over(sum(map(abs, look.moving.values())), look.pledged),
        "funding_against_day": carry / gross,
        "basis_against": basis / gross,
    }


# ---- volatility


def volatility(look: Look, books: Books, sweeps: Sweeps) -> dict[str, float]:
    collateral, buffer, gross = look.collateral, look.buffer, look.gross
    fast, slow = sigma(look.exposures["1h"]), sigma(look.exposures["48h"])
    least = 1e-12 * gross
    trend = NAN if math.isnan(fast + slow) else math.log(max(fast, least) / max(slow, least))
    hazards = sweeps.prior_logits(look)
    worst = largest([look.sigma_day(e) for e in ("1h", "6h", "48h")])
    together = sum(look.notional.values()) + sum(look.moving.values())
    nearest = smallest(list(look.distances.values()))
    jump = NAN
    if not math.isnan(nearest):
        # a jump every other day, one of two against the position, larger than x with (3% / x) cubed
        rate = 0.5 * 0.5 * min((0.03 / max(nearest, 1e-12)) ** 3, 1.0)
        jump = logit_of(1.0 - math.exp(-rate))
    bankrupt = look.to_bankruptcy
    closing = books.slippage_usd(1.0) + sum(look.closing_fee.values())
    left = over(sum(look.needed.values()) - closing, look.sigma_day("prior") / math.sqrt(24.0))
    jumps = sum(look.size[m] * jump_share(market.points) for m, market in look.markets.items())
    return {
        "buffer_over_sigma": look.nearness("mean"),
        "buffer_over_sigma_1h": look.nearness("1h"),
        "buffer_over_sigma_6h": look.nearness("6h"),
        "buffer_over_sigma_48h": look.nearness("48h"),
        "buffer_over_sigma_har": look.nearness("har"),
        "buffer_over_sigma_slow": look.nearness("slow"),
        "buffer_over_sigma_ahead_1h": look.nearness("ahead_1h"),
        "buffer_over_sigma_ahead_8h": look.nearness("ahead_8h"),
        "buffer_over_sigma_ahead_24h": look.nearness("ahead_24h"),
        "effective_buffer_over_sigma": look.shown_nearness("prior"),
        "portfolio_sigma_day": look.sigma_day("mean") / gross,
        "volatility_trend": trend,
        "jump_share": jumps / gross,
        "undiversified_share": over(sigma(look.exposures["6h"]), sum(map(abs, look.parts["6h"]))),
        "prior_hazard_1h": hazards[0],
        "prior_hazard_8h": hazards[1],
        "prior_hazard_24h": hazards[2],
        "var_99_over_collateral": over(2.326347874040841 * look.sigma_day("mean"), collateral),
        "shortfall_975_over_collateral": over(2.3378027922014 * worst, collateral),
        "stress_market_over_buffer": over(0.1 * abs(together), buffer),
        "stress_sigmas_over_buffer": over(
            3.0 * abs(sum(look.exposures["48h"])) * math.sqrt(DAY_S), buffer
        ),
        "stress_single_over_buffer": over(0.2 * largest(list(look.size.values())), buffer),
        "jump_hazard_24h": jump,
        "bankruptcy_hazard_24h": NAN if math.isnan(bankrupt) else logit_of(bounded(passage(bankrupt))),
        "equity_over_sigma": bankrupt,
        "cushion_hazard_1h": NAN if math.isnan(left) else logit_of(bounded(passage(left))),
    }  # fmt: skip


# ---- books, open interest, volume


def is_known(book: Book | None, now_us: int) -> bool:
    """A book that is crossed, or older than an hour, is missing."""
    return book is not None and not book.is_crossed and now_us - book.time_us <= HOUR


def usual(terms: Sequence[tuple[float, float]], half_life_us: float = DAY) -> float:
    """Mean of (value, microseconds that it stood), half forgotten in a day; only time with a value counts."""
    clock = 0.0
    known = []
    for value, stood_us in terms:
        if not math.isnan(value):
            clock += stood_us
            known.append((clock, value, stood_us / SECOND))
    return decayed([(int(end), value, seconds) for end, value, seconds in known], half_life_us / HOUR)


def log_ratio(value: float, mean: float) -> float:
    """Within 10 either way; what never was usual is as usual."""
    if math.isnan(value):
        return NAN
    if math.isnan(mean):
        return 0.0
    return min(max(math.log(max(value, 1e-12)) - math.log(max(mean, 1e-12)), -10.0), 10.0)


def spread_of(book: Book) -> float:
    return (book.ask - book.bid) / ((book.ask + book.bid) / 2)


class Books:
    """What closing an account's positions meets; NaN where a book is missing."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.side = {m: 0 if held.quantity > 0.0 else 1 for m, held in look.held.items()}
        self.book: dict[int, Book] = {}
        for m, market in look.markets.items():
            newest = market.books[-1] if market.books else None
            if newest is not None and is_known(newest, look.world.now_us):
                self.book[m] = newest

    def depth(self, market: int, bps: float, side: int) -> float:
        book = self.book.get(market)
        return NAN if book is None or not book.levels else depth_at(bps, *book.side(side))

    def closing(self, market: int, bps: float) -> float:
        return self.depth(market, bps, self.side[market])

    def slippage(self, market: int, share: float) -> float:
        book = self.book.get(market)
        if book is None:
            return NAN
        return slippage_bps(share * self.look.size[market], *book.side(self.side[market]))

    def slippage_usd(self, share: float) -> float:
        """What the whole position would lose at the slippage of a share of it."""
        return sum(size * self.slippage(m, share) / 1e4 for m, size in self.look.size.items())

    def spread(self, market: int) -> float:
        return spread_of(self.book[market]) if market in self.book else NAN

    def usual_spread(self, market: int) -> float:
        books = self.look.markets[market].books
        return usual([
            (NAN if book.is_crossed else spread_of(book), after.time_us - book.time_us)
            for book, after in pairwise(books)
        ])  # fmt: skip

    def usual_depth(self, market: int) -> float:
        books = self.look.markets[market].books
        return usual([
            (NAN if book.is_crossed or not book.levels
             else depth_at(100.0, *book.side(self.side[market])), after.time_us - book.time_us)
            for book, after in pairwise(books)
        ])  # fmt: skip


def order_book(look: Look, books: Books) -> dict[str, float]:
    def by_notional(value: Callable[[int], float]) -> float:
        return sum(size * value(m) for m, size in look.size.items()) / look.gross

    def most(scale: Callable[[int], float]) -> float:
        return largest([over(size, scale(m)) for m, size in look.size.items()])

    def lead(market: int) -> float:
        closing, other = (books.depth(market, 100.0, side) for side in (0, 1))
        if closing + other == 0.0:
            return NAN
        return (closing - other) / (closing + other) * (1 if books.side[market] == 0 else -1)

    # as much as would be a hundred times the position in a full book
    thin = books.slippage_usd(100.0) + sum(look.closing_fee.values()) - sum(look.needed.values())
    return {
        "spread_bps": by_notional(lambda m: books.spread(m) * 1e4),
        "slippage_to_close_bps": by_notional(lambda m: books.slippage(m, 1.0)),
        "slippage_over_buffer": over(books.slippage_usd(1.0), look.buffer),
        "position_over_depth": most(lambda m: books.closing(m, 100.0)),
        "depth_imbalance": by_notional(lead),
        "position_over_open_interest": most(lambda m: interest(look.markets[m])),
        "position_over_depth_25bps": most(lambda m: books.closing(m, 25.0)),
        "position_over_depth_2pct": most(lambda m: books.closing(m, 200.0)),
        "slippage_quarter_bps": by_notional(lambda m: books.slippage(m, 0.25)),
        "slippage_double_bps": by_notional(lambda m: books.slippage(m, 2.0)),
        "depth_change": by_notional(lambda m: log_ratio(books.closing(m, 100.0), books.usual_depth(m))),
        "spread_change": by_notional(lambda m: log_ratio(books.spread(m), books.usual_spread(m))),
        "position_over_volume": most(lambda m: volume_a_day(look.markets[m])),
        "open_interest_change": by_notional(
            lambda m: log_ratio(interest(look.markets[m]), usual_interest(look.markets[m]))
        ),
        "prior_severity": NAN if math.isnan(thin) else min(max(thin / look.gross, 0.0), 1.0),
    }


def interest(market: Market) -> float:
    return market.bars[-1].interest if market.bars else NAN


def usual_interest(market: Market) -> float:
    bars = market.bars
    return usual([(bar.interest, after.time_us - bar.time_us)
                  for bar, after in pairwise(bars)])  # fmt: skip


def volume_a_day(market: Market) -> float:
    """Volume over the time that the bars which tell it cover, weights halved by a day of such time."""
    bars = market.bars
    traded = [(after.volume, after.time_us - bar.time_us) for bar, after in pairwise(bars)]
    traded = [(volume, covered_us) for volume, covered_us in traded if not math.isnan(volume)]
    if not traded:
        return NAN
    later_us = [sum(covered_us for _, covered_us in traded[k + 1 :]) for k in range(len(traded))]
    known_us = sum(covered_us for _, covered_us in traded)
    faded = sum(volume * remaining(later, DAY) for (volume, _), later in zip(traded, later_us, strict=True))
    # a day's volume, had it come evenly: all weights together are (1 - 2 ** -days) / log 2 days
    return faded * math.log(2.0) / (1.0 - remaining(known_us, DAY))


# ---- liquidation pressure


def pressure(look: Look, books: Books, sweeps: Sweeps) -> dict[str, float]:
    names = ("pressure_1pct", "pressure_3pct", "pressure_10pct", "pressure_opposite_3pct",
             "forced_over_open_interest", "queue_over_open_interest", "distance_past_ignition")  # fmt: skip
    by_notional = dict.fromkeys(names, 0.0)
    ahead, ignitions = [], []
    for m, size in look.size.items():
        market, side, pressed = look.markets[m], books.side[m], sweeps.pressed.get(m)
        share = size / look.gross
        away = log_distance(look.distances[m], side)
        if pressed is None:
            within = {move: NAN for move in (0.01, 0.03, 0.1)}
            back = before = ignition = NAN
        else:
            within = {move: pressed.within(side, move, market.mark) for move in (0.01, 0.03, 0.1)}
            back = pressed.within(1 - side, 0.03, market.mark)
            before = NAN if math.isnan(away) else pressed.before(side, away, market.mark)
            ignition = pressed.ignition(side, market.mark)
        if not (m in books.book and books.book[m].levels):
            ignition = NAN
        by_notional["pressure_1pct"] += share * over(within[0.01], books.closing(m, 100.0))
        by_notional["pressure_3pct"] += share * over(within[0.03], books.closing(m, 300.0))
        by_notional["pressure_10pct"] += share * over(within[0.1], books.closing(m, 1_000.0))
        by_notional["pressure_opposite_3pct"] += share * over(back, books.depth(m, 300.0, 1 - side))
        by_notional["forced_over_open_interest"] += share * over(within[0.1], interest(market))
        by_notional["queue_over_open_interest"] += share * over(before, interest(market))
        by_notional["distance_past_ignition"] += share * (
            NAN if math.isnan(away) else min(away, REACH) - ignition
        )
        ahead.append(over(before, NAN if math.isnan(away) else books.closing(m, away * 1e4)))
        ignitions.append(over(ignition, look.sigma_of(m)["48h"] * math.sqrt(DAY_S)))
    return by_notional | {
        "queue_ahead_over_depth": largest(ahead),
        "ignition_over_sigma": smallest(ignitions),
    }


# ---- behaviour


def behaviour(look: Look) -> dict[str, float]:
    account, now_us, equity = look.account, look.world.now_us, look.equity

    def lately(terms: Sequence[tuple[int, float]]) -> float:
        return math.fsum(value * remaining(now_us - time_us, FADE_US) for time_us, value in terms)

    filled = 0.0 if kinds.FILL in look.world.seen else NAN
    paid = 0.0 if kinds.TRANSFER in look.world.seen else NAN
    outcomes = 0.0 if {kinds.FILL, kinds.DEFAULT} & look.world.seen else NAN
    losses = 0
    for fill in account.fills:
        if fill.is_losing_close is not None:
            losses = losses + 1 if fill.is_losing_close else 0
    held_h = 0.0
    for m, held in look.held.items():
        hours = NAN if held.opened_us is None else (now_us - held.opened_us) / HOUR
        held_h += look.size[m] * hours / look.gross
    since_h = (now_us - account.liquidations[-1][0]) / HOUR if account.liquidations else FAR
    added = [(fill.time_us, fill.notional) for fill in account.fills if fill.is_added_to_loser]
    best, mean = best_equity(account), usual_equity(account)
    age_us = NAN if account.opened_us is None else now_us - account.opened_us
    return {
        "turnover": filled + over(lately([(fill.time_us, fill.notional) for fill in account.fills]), equity),
        "fills": filled + lately([(fill.time_us, 1.0) for fill in account.fills]),
        "added_to_losers": filled + over(lately(added), equity),
        "loss_streak": filled + losses,
        "holding_hours": NAN if math.isnan(held_h) else math.log10(max(held_h, 1e-3)),
        "paid_in": paid + over(lately([(t.time_us, max(t.dollars, 0.0)) for t in account.transfers]), equity),
        "paid_out": paid
        + over(lately([(t.time_us, max(-t.dollars, 0.0)) for t in account.transfers]), equity),
        "rescues": (NAN if math.isnan(lowest_ratio(account)) else paid)
        + lately([(t.time_us, 1.0) for t in account.transfers if t.is_rescue]),
        "past_liquidations": outcomes + lately([(time_us, 1.0) for time_us, _ in account.liquidations]),
        "hours_since_liquidation": outcomes + min(since_h, FAR),
        "drawdown": NAN if math.isnan(best) else max(over(best - equity, best), 0.0),
        "equity_change": NAN
        if math.isnan(equity)
        else log_ratio(max(equity, 0.01), NAN if math.isnan(mean) else max(mean, 0.01))
        + (NAN if math.isnan(mean) else 0.0),
        "lowest_margin_ratio": lowest_ratio(account),
        "open_orders": account.open_orders,
        "account_age": NAN if math.isnan(age_us) else math.log10(max(age_us / DAY, 0.01)),
    }


# ---- owner, staleness, regime


def venue(look: Look, sweeps: Sweeps) -> dict[str, float]:
    accounts, ratio = sweeps.owner(look)
    world, markets = look.world, list(look.markets.values())
    return {
        "owner_accounts": accounts,
        "owner_margin_ratio": ratio,
        "book_age_s": book_age_s(look),
        "funding_age_s": age_s(world, [m.funding[-1][0] if m.funding else None for m in markets]),
        "mark_age_s": mark_age_s(look),
        "asset_price_age_s": price_age_s(look),
        "account_age_s": age_s(world, [look.account.changed_us]),
        "outcome_ratio": sweeps.outcome_ratio(world, kinds.DEFAULT in world.seen),
        "forecast_ratio": sweeps.forecast_ratio(),
    }


def mark_age_s(look: Look) -> float:
    return age_s(look.world, [m.bars[-1].time_us if m.bars else None for m in look.markets.values()])


def book_age_s(look: Look) -> float:
    return age_s(look.world, [m.books[-1].time_us if m.books else None for m in look.markets.values()])


def price_age_s(look: Look) -> float:
    moving = [asset for asset, _ in look.balances.values() if asset.moves]
    return age_s(look.world, [a.points[-1][0] if a.points else None for a in moving])


def age_s(world: World, times_us: Sequence[int | None]) -> float:
    """Of the oldest, NaN where one never was; 0 of none."""
    ages = [NAN if time_us is None else (world.now_us - time_us) / SECOND for time_us in times_us]
    return largest(ages) if ages else 0.0


# ---- figures


def figures(look: Look, books: Books) -> dict[str, float]:
    return {
        "EQUITY_USD": look.equity,
        "COLLATERAL_USD": look.collateral,
        "INITIAL_MARGIN_USD": look.initial,
        "MAINTENANCE_MARGIN_USD": look.maintenance,
        "GROSS_NOTIONAL_USD": look.gross,
        "MARGIN_RATIO": look.ratio,
        "BUFFER_OVER_SIGMA_DAY": look.nearness("mean"),
        "SIGMA_DAY_USD": look.sigma_day("mean"),
        "CLOSING_COST_USD": books.slippage_usd(1.0) + sum(look.closing_fee.values()),
        "STATIC_INITIAL_RATE": look.initial / look.gross,
        "STATIC_MAINTENANCE_RATE": sum(look.needed.values()) / look.gross,
        "FIGURE_INITIAL_IN_FORCE": look.account.in_force[0],
        "FIGURE_MAINTENANCE_IN_FORCE": look.account.in_force[1],
        "MARK_AGE_S": mark_age_s(look),
        "OPEN_POSITIONS": float(len(look.held)),
        "PRICE_AGE_S": price_age_s(look),
        "BOOK_AGE_S": book_age_s(look),
        "SIGMA_SLOW_DAY_USD": look.sigma_day("slow"),
        "ENTERS": 0.0,
    }
