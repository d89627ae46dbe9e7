"""Alerts: raised at once, called off late, told with what they rest on, and judged by what came."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.errors import InputError
from features.venue import Vectors
from serving import alerts as module
from serving.alert import Alert, AlertsAnswer, chosen_levels, lead_time_h, levels
from serving.alerts import CALM_ROUNDS, CURED, LISTED, Alerts
from serving.app import App
from serving.engine import Engine
from serving.front import Front
from serving.ladder import Levels
from serving.scorer import Scores
from serving.service import Service
from serving.wire import ModelAnswer, RefusalError
from tests.serving import stories as tell
from tests.serving.stories import FakeScorer, bar, send, story


class Told(FakeScorer):
    """Probabilities within 1, 8 and 24 hours as a test says them, by number of the account; else none."""

    def __init__(self) -> None:
        super().__init__()
        self.pd: dict[int, Sequence[float]] = {}

    def score(self, vectors: Vectors, levels: Levels | None = None) -> Scores:
        scores = super().score(vectors, levels)
        for row, key in enumerate(vectors.account.tolist()):
            scores.pd[row, :3] = self.pd.get(key, (0.0, 0.0, 0.0))
            scores.fallback[row] = "model_gave_no_number" if math.isnan(scores.pd[row, 0]) else None
        return scores


CALM, MIDDLE = (0.0, 0.01, 0.05), (0.01, 0.05, 0.15)
WATCH, WARNING, CRITICAL = (0.01, 0.1, 0.2), (0.1, 0.2, 0.4), (0.2, 0.5, 0.9)
UNKNOWN = (math.nan,) * 3


class Desk:
    """A venue whose accounts' probabilities a test says, and the alerts about it."""

    def __init__(self, events: list[tell.Event] | None = None) -> None:
        self.scorer = Told()
        self.engine = Engine(self.scorer)
        self.minute = 9.0
        send(self.engine, story() if events is None else events)
        self.alerts = Alerts(self.engine)

    def say(self, name: str, pd: Sequence[float]) -> None:
        self.scorer.pd[self.engine.venue.find_account(name)] = pd

    def events(self, *events: tell.Event) -> None:
        send(self.engine, list(events))

    def round(self, minutes: float = 1.0) -> AlertsAnswer:
        """A whole round so many minutes after the last."""
        self.minute += minutes
        self.events(bar(self.minute, 60_600.0))
        before = self.alerts.rounds
        for _ in range(10_000):
            if not self.alerts.step():
                break
        assert self.alerts.rounds == before + 1
        return self.alerts.answer()

    def one(self) -> Alert:
        (alert,) = self.alerts.answer().alerts
        return alert

    def rounds(self, name: str, *said: Sequence[float]) -> list[str | None]:
        """The level of an account after each round in which it was said to be so."""
        found: list[str | None] = []
        for pd in said:
            self.say(name, pd)
            standing = {alert.account_id: alert.level for alert in self.round().alerts}
            found.append(standing.get(name))
        return found


@pytest.fixture
def desk() -> Desk:
    return Desk()


def changes(answer: AlertsAnswer) -> list[tuple[str, str, str, str]]:
    return [(entry.account_id, entry.change, entry.level, entry.why) for entry in answer.changes]


@pytest.mark.parametrize(
    ("pd", "level"),
    [
        (CALM, None), (MIDDLE, None), ((0.0, 0.0, 0.2 - 1e-12), None), ((0.0, 0.0, 0.2), "watch"),
        ((0.0, 0.2, 0.2), "warning"), ((0.2, 0.2, 0.2), "critical"), ((1.0, 1.0, 1.0), "critical"),
        (UNKNOWN, None),
    ],
)  # fmt: skip
def test_a_level_is_raised_at_once(desk: Desk, pd: Sequence[float], level: str | None) -> None:
    assert desk.rounds("ann", pd) == [level]


def test_a_level_is_lost_only_below_its_lower_threshold_and_only_after_some_rounds(desk: Desk) -> None:
    calm = [CALM] * CALM_ROUNDS
    assert desk.rounds("ann", CRITICAL, *calm) == ["critical"] * CALM_ROUNDS + [None]
    assert desk.rounds("ann", WATCH, *[MIDDLE] * 20) == ["watch"] * 21
    assert desk.rounds("ann", CRITICAL, *[MIDDLE] * CALM_ROUNDS) == ["critical"] * CALM_ROUNDS + ["watch"]
    assert desk.rounds("ann", WARNING) == ["warning"]
    assert changes(desk.alerts.answer()) == [
        ("ann", "raised", "critical", "probability"),
        ("ann", "cleared", "critical", "probability"),
        ("ann", "raised", "watch", "probability"),
        ("ann", "raised", "critical", "probability"),
        ("ann", "lowered", "watch", "probability"),
        ("ann", "raised", "warning", "probability"),
    ]


def test_those_about_to_lose_their_level_are_marked_and_come_last(desk: Desk) -> None:
    desk.say("ann", CRITICAL)
    desk.say("bob", (0.2, 0.4, 0.6))
    desk.round()
    desk.say("ann", (0.09, 0.4, 0.9))
    alerts = desk.round().alerts
    assert [(alert.account_id, alert.falling) for alert in alerts] == [("bob", False), ("ann", True)]
    desk.say("ann", (0.15, 0.4, 0.9))
    desk.say("bob", CALM)
    alerts = desk.round().alerts
    assert [(alert.account_id, alert.falling) for alert in alerts] == [("ann", False), ("bob", True)]


@given(st.lists(st.sampled_from([CALM, MIDDLE, WATCH, UNKNOWN]), min_size=1, max_size=40))
def test_a_score_that_sways_raises_one_alert_not_many(said: list[Sequence[float]]) -> None:
    desk = Desk()
    found = desk.rounds("ann", *said)
    raised = [entry for entry in desk.alerts.answer().changes if entry.change == "raised"]
    longest = calm = cleared = 0
    for pd in said:  # as often as it was calm for long enough after an alert
        calm = calm + 1 if pd is CALM else calm if pd is UNKNOWN else 0
        longest = max(longest, calm)
        cleared += calm == CALM_ROUNDS
    assert len(raised) <= 1 + cleared
    if longest < CALM_ROUNDS:
        first = found.index("watch") if "watch" in found else len(found)
        assert found == [None] * first + ["watch"] * (len(found) - first)


def test_nothing_is_called_off_because_nobody_knows(desk: Desk) -> None:
    assert desk.rounds("ann", WARNING, *[UNKNOWN] * 2 * CALM_ROUNDS) == ["warning"] * (2 * CALM_ROUNDS + 1)
    answer = desk.alerts.answer()
    assert answer.unscored == 1
    assert answer.alerts[0].status == "fallback"
    assert answer.alerts[0].fallback_reason == "model_gave_no_number"
    assert msgspec.json.decode(msgspec.json.encode(answer))["alerts"][0]["pd_liquidation_1h"] is None


def test_an_account_without_positions_any_more_has_no_alert(desk: Desk) -> None:
    desk.say("ann", WATCH)
    assert len(desk.round().alerts) == 1
    desk.minute += 1
    desk.events(tell.fill(desk.minute, "ann", -1.0, 60_000.0))
    answer = desk.round()
    assert answer.alerts == []
    assert changes(answer)[-1] == ("ann", "cleared", "watch", "closed")
    assert answer.levels[0].withdrawn == 1


def test_what_an_alert_says(desk: Desk) -> None:
    desk.say("ann", (0.2, 0.6, 0.9))
    desk.round()
    alert = desk.one()
    account = desk.engine.account("ann")
    assert alert.time == alert.since == alert.level_since
    assert alert.lead_time_h == lead_time_h([0.2, 0.6, 0.9])
    assert account.collateral_usd is not None and account.maintenance_margin_usd is not None
    assert alert.margin_ratio == pytest.approx(account.collateral_usd / account.maintenance_margin_usd)
    spare = account.collateral_usd - account.maintenance_margin_usd
    assert alert.distance_to_liquidation == pytest.approx(spare / 60_600.0)
    assert alert.gross_notional_usd == pytest.approx(60_600.0)
    assert alert.reasons is not None and alert.reasons[0].feature == "margin_ratio"
    assert alert.cure is not None and alert.cure.time == alert.time
    began = alert.since
    desk.say("ann", (0.1, 0.6, 0.9))
    answer = desk.round()
    assert answer.alerts[0].since == began
    assert answer.alerts[0].time > began
    assert (answer.rounds, answer.accounts, answer.round_time) == (2, 2, answer.time)
    assert answer.sequence == desk.engine.sequence


def test_the_worst_come_first_and_only_some_are_listed() -> None:
    names = [f"a{number:03}" for number in range(LISTED + 20)]
    events = [tell.market(), tell.bar(1, 60_000.0), tell.bar(2, 60_000.0)]
    for name in names:
        events += [tell.account(name, 2), tell.transfer(3, name, 1_000.0)]
    events = [event for event in events if event["table"] != "transfers"] + [
        event for event in events if event["table"] == "transfers"
    ]
    events += [tell.fill(4, name, 0.1, 60_000.0) for name in names]
    desk = Desk(events)
    for number, name in enumerate(names):
        desk.say(name, (0.0, 0.0, 0.2 + number / 1_000))
    desk.say("a000", CRITICAL)
    desk.say("a001", (0.0, 0.25, 0.3))
    answer = desk.round()
    assert [alert.account_id for alert in answer.alerts[:4]] == ["a000", "a001", names[-1], names[-2]]
    assert (len(answer.alerts), answer.more) == (LISTED, 20)
    assert [level.accounts for level in answer.levels] == [LISTED + 18, 1, 1]
    assert all(alert.reasons for alert in answer.alerts)
    assert [alert.cure is not None for alert in answer.alerts] == [True] * CURED + [False] * (LISTED - CURED)


def test_a_round_begins_once_a_minute_of_the_venue_and_no_answer_waits_for_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAST_SLICE", 1)
    monkeypatch.setattr(module, "MOST_SLICE", 1)
    alerts = Alerts(desk.engine)
    desk.say("ann", WATCH)
    desk.scorer.calls.clear()
    assert alerts.step()
    # one slice, with what its owner holds in both accounts, and questions can be asked before the next
    assert desk.scorer.calls == [1, 2]
    assert alerts.answer().rounds == 0
    assert alerts.answer().round_time is None
    while alerts.step():
        pass
    assert alerts.rounds == 1
    assert not alerts.step()
    desk.events(bar(8.9, 60_600.0))
    assert not alerts.step()
    desk.events(bar(9, 60_600.0))
    assert alerts.step()


def test_looking_changes_nothing(desk: Desk) -> None:
    before = desk.engine.venue.digest()
    desk.say("ann", CRITICAL)
    while desk.alerts.step():
        pass
    assert desk.engine.venue.digest() == before


def test_before_any_event_there_is_nothing_to_look_at() -> None:
    alerts = Alerts(Engine(FakeScorer()))
    assert not alerts.step()
    with pytest.raises(RefusalError, match="no event"):
        alerts.answer()


def test_a_round_that_fails_is_tried_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.say("ann", WATCH)

    def broken(*_: object) -> Scores:
        raise RuntimeError

    with monkeypatch.context() as broke:
        broke.setattr(desk.scorer, "score", broken)
        desk.events(bar(9, 60_600.0))
        with pytest.raises(RuntimeError):
            desk.alerts.step()
    assert not desk.alerts.step()  # the next minute
    assert len(desk.round().alerts) == 1


def test_a_start_finds_what_stands_anew(desk: Desk) -> None:
    desk.say("ann", WATCH)
    desk.round()
    again = Desk.__new__(Desk)
    again.__dict__ |= desk.__dict__ | {"alerts": Alerts(desk.engine)}
    answer = again.round()
    assert [alert.account_id for alert in answer.alerts] == ["ann"]
    assert answer.alerts[0].since == answer.time


def test_the_service_looks_while_it_answers_and_tells(desk: Desk) -> None:
    desk.say("ann", CRITICAL)
    service = Service(desk.engine, ModelAnswer("fake-1", "f" * 64, ""), alerts=desk.alerts)
    app = App(Front(service))

    async def ask() -> AlertsAnswer:
        transport = httpx.ASGITransport(app=app)
        async with app.lifespan(), httpx.AsyncClient(transport=transport) as client:
            while True:
                reply = await client.get("http://127.0.0.1/v1/alerts")
                answer = msgspec.json.decode(reply.content, type=AlertsAnswer)
                if answer.rounds:
                    return answer
                await asyncio.sleep(0.01)

    answer = asyncio.run(ask())
    assert [(alert.account_id, alert.level) for alert in answer.alerts] == [("ann", "critical")]
    assert answer.alerts[0].cure is not None


def test_looking_goes_on_after_a_failure_and_says_so_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    def step() -> bool:
        nonlocal calls
        calls += 1
        if calls <= 3:
            raise RuntimeError("broken")
        raise asyncio.CancelledError

    async def at_once(_seconds: float) -> None:
        pass

    monkeypatch.setattr(desk.alerts, "step", step)
    monkeypatch.setattr(module.asyncio, "sleep", at_once)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(module.keep_looking(desk.alerts))
    assert calls == 4
    assert len(caplog.records) == 1


# -- what alerts were worth


def test_an_alert_comes_true_within_its_horizon(desk: Desk) -> None:
    desk.say("ann", CRITICAL)
    desk.round()
    desk.minute += 30
    desk.events(tell.default(desk.minute, "ann"))
    answer = desk.round()
    assert [level.raised for level in answer.levels] == [1, 1, 1]
    assert [level.came_true for level in answer.levels] == [1, 1, 1]
    assert [level.median_lead_h for level in answer.levels] == [0.5, 0.5, 0.5]
    assert (answer.liquidations, answer.unwarned) == (1, 0)


def test_an_alert_whose_horizon_has_passed_did_not_come_true(desk: Desk) -> None:
    desk.say("ann", CRITICAL)
    desk.round()
    desk.minute += 61
    desk.events(tell.default(desk.minute, "ann"))
    answer = desk.round()
    watch, warning, critical = answer.levels
    assert (critical.came_true, critical.expired, critical.open) == (0, 1, 0)
    assert (watch.came_true, warning.came_true) == (1, 1)
    assert (answer.liquidations, answer.unwarned) == (1, 0)


def test_a_warning_that_was_called_off_warned_nobody(desk: Desk) -> None:
    desk.rounds("ann", WATCH, *[CALM] * CALM_ROUNDS)
    desk.minute += 1
    desk.events(tell.default(desk.minute, "ann"))
    answer = desk.round()
    assert (answer.levels[0].withdrawn, answer.levels[0].came_true) == (1, 0)
    assert (answer.liquidations, answer.unwarned) == (1, 1)


def test_what_is_raised_after_a_liquidation_did_not_foretell_it(desk: Desk) -> None:
    desk.minute += 1
    desk.events(tell.default(desk.minute, "ann"))
    desk.say("ann", CRITICAL)
    answer = desk.round()
    assert [level.came_true for level in answer.levels] == [0, 0, 0]
    assert [level.open for level in answer.levels] == [1, 1, 1]
    assert (answer.liquidations, answer.unwarned) == (1, 1)


def test_liquidations_of_before_the_start_are_of_the_past(desk: Desk) -> None:
    desk.minute += 1
    desk.events(tell.default(desk.minute, "ann"), tell.default(desk.minute, "bob", "deleverage"))
    desk.alerts = Alerts(desk.engine)
    answer = desk.round()
    assert (answer.liquidations, answer.unwarned) == (0, 0)
    desk.minute += 1
    desk.events(tell.account("new", desk.minute), tell.default(desk.minute, "new"))
    answer = desk.round()
    assert (answer.liquidations, answer.unwarned) == (1, 1)


@given(st.lists(st.tuples(st.sampled_from([CALM, WATCH, WARNING, CRITICAL, UNKNOWN]), st.booleans(),
                          st.sampled_from([1.0, 90.0, 600.0, 1500.0])), max_size=25))  # fmt: skip
def test_every_alert_is_settled_once(story_of_ann: list[tuple[Sequence[float], bool, float]]) -> None:
    desk = Desk()
    for pd, liquidated, minutes in story_of_ann:
        desk.say("ann", pd)
        if liquidated:
            desk.minute += 1
            desk.events(tell.default(desk.minute, "ann"))
        answer = desk.round(minutes)
        for level in answer.levels:
            assert level.open in (0, 1)
            assert level.raised == level.came_true + level.expired + level.withdrawn + level.open
            assert level.median_lead_h is None or 0.0 <= level.median_lead_h <= level.horizon_h
        assert answer.unwarned <= answer.liquidations


# -- levels and lead time


def test_levels_are_chosen_by_name() -> None:
    chosen = chosen_levels(["critical=0.5", "watch=0.1"])
    assert [(level.name, level.raised_from) for level in chosen] == [
        ("watch", 0.1), ("warning", 0.2), ("critical", 0.5),
    ]  # fmt: skip
    assert all(level.cleared_below < level.raised_from for level in levels())
    for wrong in ("critical", "critical=x", "urgent=0.1", "watch=0", "watch=1", "watch=nan", "=0.5", ""):
        with pytest.raises(InputError):
            chosen_levels([wrong])


@pytest.mark.parametrize(
    ("pd", "hours"),
    [
        ((0.5, 0.6, 0.7), 1.0), ((0.75, 0.8, 0.9), 0.5), ((0.0, 0.5, 0.6), 8.0), ((0.0, 0.0, 0.5), 24.0),
        ((0.0, 0.0, 0.75), 16.0), ((0.1, 0.2, 0.3), None), ((1.0, 1.0, 1.0), 0.0), ((0.1, 1.0, 1.0), 1.0),
        ((0.1, 0.2, math.nan), None), ((0.0, 0.0, 0.0), None),
    ],
)  # fmt: skip
def test_lead_time_by_hand(pd: Sequence[float], hours: float | None) -> None:
    assert lead_time_h(pd) == (None if hours is None else pytest.approx(hours))


@given(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).map(sorted), st.floats(0.0, 1.0))
def test_more_risk_is_never_later(pd: list[float], more: float) -> None:
    riskier = [probability + (1.0 - probability) * more for probability in pd]
    sooner, later = lead_time_h(riskier), lead_time_h(pd)
    assert later is None or (sooner is not None and sooner <= later + 1e-9)
    assert later is None or 0.0 <= later <= 24.0
    assert (later is None) == bool(np.log1p(-np.minimum(pd[2], 1 - 1e-16)) > -math.log(2.0)) or pd[2] > 0.49
