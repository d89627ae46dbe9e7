"""Figures for Prometheus: conventional, bounded, the same from one process and from several."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exchange.errors import WorkError
from serving import metrics
from serving.alerts import Alerts
from serving.board import READY, Board
from serving.engine import Engine
from serving.metrics import BUCKETS_S, MOST_LABELS, OTHER, Metrics
from serving.wire import EventsAnswer, Rejected
from tests.serving.stories import FakeScorer, default, send

ROOT = Path(__file__).resolve().parents[2]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: str) -> Samples:
    """Every sample by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def told(counted: Metrics) -> Samples:
    return samples(counted.exposition()[0].decode())


@pytest.fixture
def alerts(engine: Engine) -> Alerts:
    alerts = Alerts(engine)
    while alerts.step():
        pass
    return alerts


def busy(engine: Engine, alerts: Alerts | None, board: Board | None = None) -> Metrics:
    """Metrics of which every one has been used."""
    made = Metrics(engine, alerts, board)
    made.route("/v1/score")(200, 0.001)
    made.count_refusal("late")
    made.count_events(EventsAnswer(1, [Rejected(0, "late", "why")], 1))
    answer = engine.ask(metrics_question()).answers[0]
    made.count_answers([answer])
    answer.status, answer.fallback_reason = "fallback", "stale_mark"
    made.count_answers([answer])
    made.synced_log(0.001)
    made.synced_audit(0.001)
    made.follow(lambda: 3, lambda: 5)
    return made


def metrics_question():  # type: ignore[no-untyped-def]
    from tests.serving.stories import question

    return question("ann")


def test_durations_are_counted_as_prometheus_would(engine: Engine) -> None:
    made = Metrics(engine)
    meter = made.route("/v1/score")
    times_s = [0.0, 0.0001, 0.00011, 0.002, 0.1, 2.5, 2.6, 100.0]
    for time_s in times_s:
        meter(200 if time_s < 2 else 503, time_s)
    for _ in range(2):  # telling it twice counts nothing twice
        found = told(made)
        for bound in BUCKETS_S:
            key = ("perprisk_request_duration_seconds_bucket", (("le", str(bound)), ("route", "/v1/score")))
            assert found[key] == sum(time_s <= bound for time_s in times_s)
        route = (("route", "/v1/score"),)
        assert found["perprisk_request_duration_seconds_count", route] == len(times_s)
        assert found["perprisk_request_duration_seconds_sum", route] == pytest.approx(sum(times_s))
        assert found["perprisk_requests_total", (*route, ("status", "503"))] == 3


def test_labels_are_bounded(engine: Engine) -> None:
    made = Metrics(engine)
    for _ in range(2):
        made.count_events(EventsAnswer(0, [Rejected(0, f"made-{n}", "why") for n in range(1_000)], 0))
    outcomes = {dict(labels)["outcome"]: value for (name, labels), value in told(made).items()
                if name == "perprisk_events_total"}  # fmt: skip
    assert len(outcomes) <= MOST_LABELS + 1
    assert outcomes[OTHER] == 2 * (1_000 - MOST_LABELS + 1)
    assert sum(outcomes.values()) == 2_000


def test_what_is_followed_counts_from_where_it_was(engine: Engine) -> None:
    made = Metrics(engine)
    number = 0
    made.follow(lambda: 2, lambda: number)
    assert told(made)["perprisk_overload_refusals_total", ()] == 0
    number = 7
    assert told(made)["perprisk_overload_refusals_total", ()] == 7
    assert told(made)["perprisk_requests_in_flight", ()] == 2


def test_alerts_are_told_by_level_and_by_what_became_of_them(engine: Engine, alerts: Alerts) -> None:
    made = busy(engine, alerts)
    found = told(made)
    for level, count in zip(alerts.levels, alerts.counts(), strict=True):
        assert found["perprisk_alerts", (("level", level.name),)] == count
    assert found["perprisk_alert_outcomes_total", (("level", "watch"), ("outcome", "came_true"))] == 0
    send(engine, [default(9, "ann"), default(9, "cem")])
    while not alerts.step():
        send(engine, [default(10, "ann")])
    while alerts.step():
        pass
    found = told(made)
    liquidations = [found["perprisk_liquidations_total", (("warned", word),)] for word in ("yes", "no")]
    assert sum(liquidations) == alerts.hindsight.liquidations == 2


def test_the_board_tells_of_every_worker(engine: Engine) -> None:
    board = Board.make(3)
    board.worker = 1
    board.write(17, READY)
    found = told(Metrics(engine, None, board))
    for name, values in (("up", [0, 1, 0]), ("ready", [0, 1, 0]), ("sequence", [0, 17, 0])):
        assert [found[f"perprisk_worker_{name}", (("worker", str(n)),)] for n in range(3)] == values


def test_names_of_accounts_and_markets_are_no_labels(engine: Engine, alerts: Alerts) -> None:
    text = busy(engine, alerts).exposition()[0].decode()
    assert not re.search(r'"(ann|bob|cem|BTC|SOL|ETH|o1)"', text)


def test_several_processes_need_to_be_told_so_before_they_start(engine: Engine, tmp_path: Path) -> None:
    if metrics.values.ValueClass._multiprocess:
        pytest.skip("this process was told so")
    with pytest.raises(WorkError, match="PROMETHEUS_MULTIPROC_DIR"):
        Metrics(engine, folder=str(tmp_path))


WORKER = """
import sys
from serving.alerts import Alerts
from serving.engine import Engine
from serving.metrics import Metrics
from tests.serving.stories import FakeScorer, send, story
engine = Engine(FakeScorer())
send(engine, story())
alerts = Alerts(engine) if sys.argv[2] == "0" else None
while alerts is not None and alerts.step(): pass
made = Metrics(engine, alerts, folder=sys.argv[1])
meter = made.route("/v1/score")
for _ in range(3): meter(200, 0.002)
made.count_refusal("late")
made.follow(lambda: 0, lambda: 4)
made.flush()
print(made.exposition()[0].decode())
"""


def test_several_processes_tell_one_sum(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    text = ""
    for worker in "01":
        command = [sys.executable, "-c", WORKER, str(tmp_path), worker]
        text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found = samples(text)
    route = (("route", "/v1/score"),)
    assert found["perprisk_requests_total", (*route, ("status", "200"))] == 6
    assert found["perprisk_request_duration_seconds_count", route] == 6
    bucket = ("perprisk_request_duration_seconds_bucket", (("le", "0.0025"), *route))
    assert found[bucket] == 6
    assert found["perprisk_refusals_total", (("code", "late"),)] == 2
    assert found["perprisk_overload_refusals_total", ()] == 8
    assert found["perprisk_sequence", ()] == 25  # that of the one asked, not a sum
    assert found["perprisk_alerts", (("level", "watch"),)] >= 0  # only the first process looks for them
    assert len([name for name, _ in found if name == "perprisk_alert_round_timestamp_seconds"]) == 1


# -- what is drawn and what rules ask for exists


def names_in(text: str) -> set[str]:
    return set(re.findall(r"\bperprisk_[a-z_]+[a-z]", text))


@pytest.fixture
def exposed(engine: Engine, alerts: Alerts) -> set[str]:
    score = alerts.hindsight.scores[0]
    score.leads_h.append(1.0)
    return {name for name, _ in told(busy(engine, alerts, Board.make(2)))}


def test_every_figure_of_the_dashboard_exists_and_every_figure_has_a_place(exposed: set[str]) -> None:
    dashboard = json.loads((ROOT / "docs" / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])] + [
        entry.get("query", "") for entry in dashboard["templating"]["list"]
    ]
    drawn = set.union(*(names_in(query) for query in queries))
    assert drawn <= exposed
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exposed if "_created" not in name}
    assert families == {re.sub(r"_(bucket|sum|count)$", "", name) for name in drawn}
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(titles)


def test_the_dashboard_asks_for_labels_that_exist(engine: Engine, alerts: Alerts) -> None:
    found = told(busy(engine, alerts, Board.make(2)))
    labels: dict[str, set[str]] = {}
    for name, pairs in found:
        labels.setdefault(name, {"instance"}).update(label for label, _ in pairs)
    text = (ROOT / "docs" / "dashboard.json").read_text() + (ROOT / "docs" / "watching.md").read_text()
    for name, chosen in re.findall(r"\b(perprisk_[a-z_]+)\{([^}]*)\}", text.replace('\\"', '"')):
        asked = set(re.findall(r"(\w+)=~?\"", chosen))
        assert name not in labels or asked <= labels[name], (name, asked)


def test_every_figure_of_the_rules_exists(exposed: set[str]) -> None:
    page = (ROOT / "docs" / "watching.md").read_text()
    rules = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert rules
    for rule in rules:
        assert names_in(rule) <= exposed
        assert rule.count("alert:") == rule.count("expr:") == rule.count("summary:")


def test_what_is_counted_when_the_service_answers_is_a_few_steps_of_python(engine: Engine) -> None:
    """No wall clock: what is done for a request touches no object of Prometheus at all."""
    made = Metrics(engine)
    meter = made.route("/v1/score")
    before = made.exposition()[0]
    meter(200, 0.001)
    made.count_refusal("late")
    made._requests.clear()  # had it been written there, it would be gone now
    assert told(made)["perprisk_requests_total", (("route", "/v1/score"), ("status", "200"))] == 1
    assert before != made.exposition()[0]


def test_a_scorer_that_is_swapped_is_told(engine: Engine) -> None:
    made = Metrics(engine)
    assert told(made)["perprisk_model_info", (("model_version", "fake-1"),)] == 1
    other = FakeScorer()
    other.model_version = "fake-2"
    engine.scorer = other
    assert ("perprisk_model_info", (("model_version", "fake-1"),)) not in told(made)
