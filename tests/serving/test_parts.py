"""Parts of a suggestion: what each asks for, by hand, and by another way of adding them up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from serving.parts import (
    ACCOUNT_RISK,
    BUFFER,
    BY_BUFFER,
    BY_CEILING,
    BY_FLOOR,
    BY_KEPT,
    BY_LIQUIDITY,
    BY_LOADING,
    BY_SIGMAS,
    BY_STAMPED,
    BY_STRESS,
    BY_STRESSED_SIGMA,
    BY_TARGET,
    IN_FORCE,
    LIMIT,
    LIQUIDITY,
    PART_NAMES,
    PARTS,
    STANDARD,
    STATIC,
    TERMS,
    VOLATILITY,
)
from serving.policy import LOADING, RUNGS, TARGET_PD, UNKNOWN_CLOSING_COST
from serving.wire import Parts
from tests.serving.suggestions import NAN, Accounts, Floats, Suggested, draw, suggest_all

DAY = math.sqrt(24.0)  # a sigma of this much a day moves by 1 an hour


def terms(**of: float) -> Floats:
    row = STANDARD.copy()
    for name, value in of.items():
        row[globals()[f"BY_{name.upper()}"]] = value
    return row


def one(
    static: float = 0.1, in_force: float = NAN, pd: float = 0.0, cost: float = 0.02, hour: float = 0.01,
    slow_hour: float = 0.01, failed: bool = False, enters: bool = False, **of: float,
) -> tuple[float, list[int]]:  # fmt: skip
    """The rate of one account and its parts; moves are those of an hour."""
    asked = terms(**{"target": 0.01} | of)
    found = suggest_all(
        static, in_force, np.full(RUNGS, pd), cost, hour * DAY, slow_hour * DAY, failed, enters, asked
    )
    return float(found.rate[0]), [int(part) for part in found.parts[0]]


def test_names_are_those_of_the_wire() -> None:
    assert Parts.__struct_fields__ == tuple(f"{name}_ppm" for name in PART_NAMES)
    assert len(PART_NAMES) == PARTS
    assert len({BY_LOADING, BY_TARGET, BY_SIGMAS, BY_STRESS, BY_STRESSED_SIGMA, BY_FLOOR, BY_BUFFER,
                BY_LIQUIDITY, BY_CEILING, BY_STAMPED, BY_KEPT}) == TERMS == len(STANDARD)  # fmt: skip


def test_the_standard_terms_are_the_schedule_and_account_risk_stamped() -> None:
    assert list(STANDARD) == [LOADING, TARGET_PD, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
    assert one() == (0.1, [100_000, 0, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("given", "rate", "parts"),
    [
        # 2 x (26% - 1%) x (2% + 1%) = 1.5%
        ({"pd": 0.26, "loading": 2.0, "target": 0.01}, 0.115, {ACCOUNT_RISK: 15_000}),
        ({"pd": 0.26, "loading": 0.0}, 0.1, {}),
        # a move of 1% an hour, 12 sigmas: 12%, of which the schedule has 10
        ({"sigmas": 12.0}, 0.12, {VOLATILITY: 20_000}),
        ({"sigmas": 9.0}, 0.1, {}),
        ({"sigmas": 12.0, "floor": 1.0, "slow_hour": 0.015}, 0.18, {VOLATILITY: 80_000}),
        ({"sigmas": 12.0, "floor": 1.0, "slow_hour": 0.005}, 0.12, {VOLATILITY: 20_000}),
        # a quarter of a stressed move of 3%: 1.5%
        ({"sigmas": 12.0, "stress": 0.25, "stressed_sigma": 0.03 * DAY}, 0.18, {VOLATILITY: 80_000}),
        ({"sigmas": 12.0, "stress": 0.25, "stressed_sigma": 0.005 * DAY}, 0.12, {VOLATILITY: 20_000}),
        # calm: the buffer is a quarter of the long-run move, and used up as the move of now grows
        ({"sigmas": 12.0, "buffer": 0.25}, 0.15, {VOLATILITY: 20_000, BUFFER: 30_000}),
        ({"sigmas": 12.0, "buffer": 0.25, "hour": 0.011}, 0.15, {VOLATILITY: 32_000, BUFFER: 18_000}),
        ({"sigmas": 12.0, "buffer": 0.25, "hour": 0.0125}, 0.15, {VOLATILITY: 50_000}),
        ({"sigmas": 12.0, "buffer": 0.25, "hour": 0.013}, 0.156, {VOLATILITY: 56_000}),
        ({"sigmas": 12.0, "buffer": 0.25, "hour": 0.001}, 0.15, {BUFFER: 50_000}),
        # one and a half times a cost of closing of 2%
        ({"liquidity": 1.5}, 0.13, {LIQUIDITY: 30_000}),
        ({"liquidity": 1.5, "cost": NAN}, 0.175, {LIQUIDITY: 75_000}),
        # what stands for volatility and liquidity pays for the account's risk too: 11.5% is there
        ({"pd": 0.26, "loading": 2.0, "liquidity": 0.5}, 0.115,
         {LIQUIDITY: 10_000, ACCOUNT_RISK: 5_000}),
        ({"pd": 0.26, "loading": 2.0, "liquidity": 1.5}, 0.13, {LIQUIDITY: 30_000}),
        # a ceiling takes off whichever part it meets, never what the schedule or the record asks for
        ({"liquidity": 1.5, "ceiling": 0.12}, 0.12, {LIQUIDITY: 30_000, LIMIT: -10_000}),
        ({"liquidity": 1.5, "ceiling": 0.0}, 0.1, {LIQUIDITY: 30_000, LIMIT: -30_000}),
        ({"ceiling": 0.0, "in_force": 0.3}, 0.3, {IN_FORCE: 200_000}),
        ({"liquidity": 99.0}, 1.0, {LIQUIDITY: 900_000}),
        # stamped: neither more nor less than the record while nothing is added
        ({"pd": 0.26, "loading": 2.0, "in_force": 0.3}, 0.3, {ACCOUNT_RISK: 15_000, IN_FORCE: 185_000}),
        ({"pd": 0.26, "loading": 2.0, "in_force": 0.105}, 0.105, {ACCOUNT_RISK: 15_000, IN_FORCE: -10_000}),
        ({"pd": 0.26, "loading": 2.0, "in_force": 0.05}, 0.1, {ACCOUNT_RISK: 15_000, IN_FORCE: -15_000}),
        ({"pd": 0.26, "loading": 2.0, "in_force": 0.105, "stamped": 0.0}, 0.115, {ACCOUNT_RISK: 15_000}),
        ({"pd": 0.26, "loading": 2.0, "in_force": 0.3, "stamped": 0.0}, 0.115, {ACCOUNT_RISK: 15_000}),
        # entering: priced, and not under the record, unless the venue says afresh
        ({"pd": 0.26, "loading": 2.0, "in_force": 0.105, "enters": True}, 0.115, {ACCOUNT_RISK: 15_000}),
        ({"pd": 0.26, "loading": 2.0, "in_force": 0.3, "enters": True}, 0.3,
         {ACCOUNT_RISK: 15_000, IN_FORCE: 185_000}),
        ({"pd": 0.26, "loading": 2.0, "in_force": 0.3, "enters": True, "kept": 0.0}, 0.115,
         {ACCOUNT_RISK: 15_000}),
        # what is not known earns no relief
        ({"pd": 0.26, "in_force": 0.3, "failed": True, "stamped": 0.0}, 0.3, {IN_FORCE: 200_000}),
        ({"pd": 0.26, "failed": True}, 0.1, {}),
        ({"pd": NAN, "in_force": 0.3, "stamped": 0.0}, 0.3, {IN_FORCE: 200_000}),
        ({"cost": NAN, "in_force": 0.3, "stamped": 0.0}, 0.3, {IN_FORCE: 200_000}),
        ({"sigmas": 1.0, "floor": 1.0, "slow_hour": NAN, "in_force": 0.3, "stamped": 0.0}, 0.3,
         {IN_FORCE: 200_000}),
        ({"sigmas": 1.0, "buffer": 0.1, "slow_hour": NAN, "in_force": 0.3, "stamped": 0.0}, 0.3,
         {IN_FORCE: 200_000}),
        ({"sigmas": 1.0, "slow_hour": NAN, "in_force": 0.3, "stamped": 0.0}, 0.1, {}),
        ({"slow_hour": NAN, "in_force": 0.3, "stamped": 0.0}, 0.1, {}),
        ({"static": NAN}, 1.0, {}),
        ({"static": 1.5, "in_force": 2.0}, 1.5, {}),
        ({"static": 0.5, "in_force": 2.0}, 1.0, {IN_FORCE: 500_000}),
    ],
)  # fmt: skip
def test_by_hand(given: dict[str, float], rate: float, parts: dict[int, int]) -> None:
    found = one(**given)  # type: ignore[arg-type]
    assert found[0] == pytest.approx(rate, abs=1e-15)
    static = given.get("static", 0.1)
    expected = [0] * PARTS
    expected[STATIC] = round(1e6 * (1.0 if math.isnan(static) else static))
    for part, ppm in parts.items():
        expected[part] = ppm
    assert found[1] == expected


def reckoned(accounts: Accounts) -> Floats:
    """Rates in one expression a rule, with numpy; account risk from the parts of the standard terms."""
    term = accounts.terms.T
    static = np.where(np.isnan(accounts.static), 1.0, accounts.static)
    top = np.maximum(static, 1.0)
    alone = accounts.terms.copy()
    alone[:, [BY_SIGMAS, BY_LIQUIDITY, BY_STAMPED, BY_KEPT]] = 0.0
    alone[:, BY_CEILING] = 1.0
    unmarked = accounts._replace(in_force=np.full(len(static), NAN), terms=alone)
    paid = suggest_all(*unmarked).rate  # rounded up: compared below to within a millionth
    now, usual = accounts.sigma / DAY, accounts.slow / DAY
    moved = now + term[BY_STRESS] * np.fmax(term[BY_STRESSED_SIGMA] / DAY - now, 0.0)
    moved = np.where(term[BY_FLOOR] > 0, np.maximum(moved, usual), moved)
    buffered = np.where(term[BY_BUFFER] > 0, np.maximum(moved, (1 + term[BY_BUFFER]) * usual), moved)
    volatility = np.where(term[BY_SIGMAS] > 0, term[BY_SIGMAS] * buffered, 0.0)
    blind = np.isnan(volatility)
    add_on = term[BY_LIQUIDITY] * np.where(np.isnan(accounts.cost), UNKNOWN_CLOSING_COST, accounts.cost)
    priced = np.maximum(np.fmax(static, volatility) + add_on, paid)
    priced = np.minimum(np.minimum(priced, top), np.maximum(static, term[BY_CEILING]))
    stands = np.fmax(static, accounts.in_force)
    failed = accounts.failed | np.isnan(accounts.pd).any(axis=1) | np.isnan(accounts.sigma)
    recorded = ~np.isnan(accounts.in_force)
    stamped = recorded & (term[BY_STAMPED] > 0) & ~accounts.enters
    keeps = np.isnan(accounts.cost) | blind | (accounts.enters & (term[BY_KEPT] > 0))
    rate = np.where(recorded & keeps, np.fmax(priced, stands), priced)
    return np.asarray(np.minimum(np.where(failed | stamped, stands, rate), top))


def test_every_rule_reckoned_another_way() -> None:
    accounts = draw(20_000, 5)
    found = suggest_all(*accounts).rate
    assert (np.abs(found - reckoned(accounts)) <= 2.1e-6).all()


def test_one_account_or_all_is_the_same() -> None:
    accounts = draw(300, 6)
    together = suggest_all(*accounts)
    apart = [suggest_all(*(column[row : row + 1] for column in accounts)) for row in range(300)]
    assert np.concatenate([each.rate for each in apart]).tobytes() == together.rate.tobytes()
    assert np.concatenate([each.parts for each in apart]).tobytes() == together.parts.tobytes()


def test_what_is_not_raised_is_not_rounded() -> None:
    assert one(static=0.1000004) == (0.1000004, [100_001, 0, 0, 0, 0, 0, 0, 0])
    assert one(static=0.1000004, in_force=0.1) == (0.1000004, [100_001, 0, 0, 0, 0, 0, 0, 0])
    assert one(static=0.1000004, in_force=0.1000005)[0] == 0.100001


def test_two_accounts_have_terms_of_their_own() -> None:
    tenth, none = np.full(2, 0.1), np.zeros(2, bool)
    rows = np.array([terms(), terms(liquidity=1.0)])
    found = suggest_all(tenth, tenth * NAN, np.zeros((2, RUNGS)), tenth, tenth, tenth, none, none, rows)
    assert found.parts[:, LIQUIDITY].tolist() == [0.0, 100_000.0]


def test_one_row_of_terms_is_everybodys() -> None:
    accounts = draw(300, 7)
    row = np.ascontiguousarray(accounts.terms[:1])
    alike: Suggested = suggest_all(*accounts._replace(terms=np.repeat(row, 300, axis=0)))
    assert suggest_all(*accounts._replace(terms=row)).rate.tobytes() == alike.rate.tobytes()
