"""`perprisk demo`: everything in one folder, and one page that needs nothing else and believes no name."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from exchange.units import DAY_US, HOUR_US
from features import catalog
from models.bundle import Bundle
from models.card import model_card
from pipelines import demo, report
from pipelines.cli import run
from pipelines.demo import last_moment
from pipelines.evaluate import judge
from pipelines.replay import replay
from pipelines.store import Dataset
from pipelines.times import format_time
from serving.scorer import Scorer
from tests.pipelines import dataset_builder as build

HOSTILE = (
    '"><script>alert(1)</script>',
    "<img src=http://example.org/x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    "'; DROP TABLE accounts; --",
    "two\nlines\r\nand\ta tab",
    "\x1b[31mred\x1b[0m\x07",
    "\u202egnirts a\u202c \u05d0\u05d1\u05d2",
    "../../etc/passwd",
    "C:\\windows\\system32",
    "{{ 7 * 7 }}{% raw %}${jndi:x}",
    "&amp;&lt;&#60;",
    "nul\0nul",
    "=cmd|'/C calc'!A0",
    "%s%n%d",
    "\U0001f600\ufeff",
    " ",
    "",
    "x" * 5_000,
)


class Page(HTMLParser):
    """What a browser would make of a page: tags with their attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._open:
            self.text.setdefault(self._open[-1], []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


def assert_self_contained(text: str) -> Page:
    """Nothing is fetched, nothing runs."""
    page = Page(text)
    assert not {name for name, _ in page.tags} & {
        "script",
        "link",
        "iframe",
        "object",
        "embed",
        "form",
        "base",
    }
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            assert "http:" not in (value or "") or name == "title"
            if name in ("src", "href", "srcset", "action"):
                assert (value or "").startswith("data:image/png;base64,")
    style = "".join(page.text.get("style", []))
    assert "url(" not in style
    assert "@import" not in style
    return page


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo on a small simulated venue: large enough for liquidations before the cut and after it."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "VENUE_ACCOUNTS", 500)
        patch.setattr(demo, "VENUE_DAYS", 6.0)
        patch.setattr(demo, "VENUE_SEED", 3)
        patch.chdir(folder)
        assert run(["demo", "--out", "out"]) == 0
    return folder / "out"


def test_the_folder_holds_what_led_to_the_report(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {
        "dataset", "model", "evaluation", "scores.parquet", "report.html",
    }  # fmt: skip
    assert {path.name for path in out.parent.iterdir()} == {"out", "mlflow.db", "mlartifacts"}
    assert run(["check", str(out / "dataset")]) == 0
    bundle = Bundle.open(out / "model", catalog.fingerprint())
    assert (
        json.loads((out / "evaluation" / "scorecard.json").read_text())["model_version"]
        == bundle.model_version
    )
    assert pl.read_parquet(out / "scores.parquet")["model_version"].unique().to_list() == [
        bundle.model_version
    ]


def test_it_is_judged_on_what_came_after_training(out: Path) -> None:
    bundle = Bundle.open(out / "model", catalog.fingerprint())
    card = json.loads((out / "evaluation" / "scorecard.json").read_text())
    (described,) = bundle.model["datasets"]
    assert described["end"] == "2025-01-04T00:00:00Z", "60% of six days, whole ones"
    assert card["from"] > "2025-01-04T00:00:00"
    dataset = Dataset.open(out / "dataset")
    assert card["to"].startswith(format_time(dataset.meta.end_us).removesuffix("Z"))


def test_the_page_needs_nothing_else_and_has_its_parts(out: Path) -> None:
    text = (out / "report.html").read_text(encoding="utf-8")
    page = assert_self_contained(text)
    (title,) = page.text["h1"]
    found = re.fullmatch(r"(\d+) of (\d+) accounts are at risk of liquidation within a day", title)
    assert found
    assert page.text["h2"] == [
        "The riskiest accounts",
        "Can it be believed? Judged on what came after training",
        "Limits",
    ]
    pictures = {attributes["alt"] for attributes in page.all("img")}
    assert pictures == {path.stem for path in (out / "evaluation").glob("*.png")} - {"shap_bar"}
    assert {"reliability", "precision_recall", "over_time", "lead_time", "shap_beeswarm"} <= pictures

    scores = pl.read_parquet(out / "scores.parquet")
    last = scores.filter(pl.col("time") == pl.col("time").max())
    assert int(found[2]) == last.height
    assert int(found[1]) == last.filter(pl.col("pd_liquidation_24h") >= 0.05).height
    shown = [attributes["title"] for attributes in page.all("td") if attributes.get("class") == "id"]
    riskiest = last.sort("pd_liquidation_24h", descending=True, maintain_order=True).head(20)
    assert shown == riskiest["account_id"].to_list()
    for reason in riskiest["reason_1"].drop_nulls():
        assert reason in text


def test_a_second_run_replaces_the_first_and_nothing_else(
    out: Path, small_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(out, tmp_path / "out")
    (tmp_path / "out" / "old").write_text("of an earlier run")
    monkeypatch.setattr(demo, "train_model", fail)
    assert run(["demo", "--dataset", str(small_dataset), "--out", str(tmp_path / "out")]) == 1
    assert (tmp_path / "out" / "old").exists(), "the earlier result stands while there is no new one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def fail(*_: object) -> None:
    raise RuntimeError("training broke down")


def test_the_last_moment_is_the_last_look_whatever_the_order_of_rows(tmp_path: Path) -> None:
    dataset = Dataset.open(build.write(tmp_path / "data"))
    assert last_moment(dataset) == build.us(build.at(9))
    build.change(dataset.path, "observations", lambda rows: rows.sort("time", descending=True))
    assert last_moment(Dataset.open(dataset.path)) == build.us(build.at(9))
    (dataset.path / "observations.parquet").unlink()
    assert last_moment(Dataset.open(dataset.path)) == dataset.meta.end_us


# ---- names that would do harm ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(small_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated venue with names that would do harm where they are taken for anything but names."""
    folder = tmp_path_factory.mktemp("hostile") / "data"
    shutil.copytree(small_dataset, folder)
    names = pl.read_parquet(folder / "accounts.parquet")["account_id"].sort().to_list()
    # every name once as it is, and numbered for all the others
    new = [
        HOSTILE[number] if number < len(HOSTILE) else f"{HOSTILE[number % len(HOSTILE)]}{number}"
        for number in range(len(names))
    ]
    renamed = dict(zip(names, new, strict=True))
    for file in folder.glob("*.parquet"):
        rows = pl.read_parquet(file)
        if "account_id" in rows.columns:
            rows.with_columns(pl.col("account_id").replace_strict(renamed)).write_parquet(file)
    meta = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(meta | {"venue": HOSTILE[0]}))
    return folder


def test_names_go_through_scoring_as_they_are(
    hostile: Path, small_dataset: Path, small_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(hostile)]) == 0
    time = format_time(Dataset.open(hostile).meta.start_us + 5 * DAY_US)
    tables = []
    for folder in (hostile, small_dataset):
        out = tmp_path / f"{folder.parent.name}.parquet"
        assert run(["score", str(folder), "--model", str(small_model), "--at", time, "--out", str(out)]) == 0
        tables.append(pl.read_parquet(out))
    numbers = [name for name, type_ in tables[0].schema.items() if type_ == pl.Float64]
    assert tables[0].select(numbers).sort(numbers).equals(tables[1].select(numbers).sort(numbers))
    assert set(tables[0]["account_id"]) <= set(pl.read_parquet(hostile / "accounts.parquet")["account_id"])
    assert tables[0]["account_id"].n_unique() == tables[0].height > 150


def test_the_page_shows_names_and_nothing_more(hostile: Path, small_model: Path) -> None:
    dataset = Dataset.open(hostile)
    scorer = Scorer(Bundle.open(small_model, catalog.fingerprint()))
    time_us = dataset.meta.start_us + 5 * DAY_US
    judged = judge(dataset, scorer, time_us, time_us + 12 * HOUR_US, 4 * HOUR_US, draws=2)
    _, vectors, venue = next(replay(dataset, np.array([time_us])))
    text = report.render(scorer, venue, vectors, time_us, judged.card, {}, dataset.meta.venue, time_us)
    page = assert_self_contained(text)
    shown = [attributes["title"] for attributes in page.all("td") if attributes.get("class") == "id"]
    day = scorer.assess(vectors).pd[:, 2]
    riskiest = [venue.account_names[vectors.account[row]] for row in np.argsort(-day, kind="stable")[:20]]
    assert shown == riskiest, "whole and unchanged, as the text of an attribute"
    assert len(shown) == 20
    assert any("<" in name for name in riskiest)
    assert page.text["title"][0].startswith(HOSTILE[0])
    assert not page.all("img")


def test_an_error_about_a_hostile_name_is_one_plain_line(
    hostile: Path, small_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(hostile, folder)
    fills = pl.read_parquet(folder / "fills.parquet")
    for number, name in enumerate(HOSTILE[::3]):
        bad = fills.head(1).with_columns(account_id=pl.lit(name), price=pl.lit(-1.0))
        bad.write_parquet(folder / "fills.parquet")
        assert run(["serve", "--model", str(small_model), "--dataset", str(folder), "--port", "0"]) == 2
        out, err = capfd.readouterr()
        assert out == ""
        assert re.fullmatch(r"error: .+\n", err), number
        assert err.rstrip("\n").isprintable()
        assert len(err) < 2_000


def test_a_venue_is_only_a_name_in_the_card(small_model: Path) -> None:
    model = Bundle.open(small_model, catalog.fingerprint()).model
    for name in HOSTILE:
        (described,) = model["datasets"]
        lines = model_card(model | {"datasets": [described | {"venue": name}]}, None).splitlines()
        (row,) = [line for line in lines if described["digest"][:16] in line]
        assert row.count("|") == 5
        assert not set("<>&") & set(row)
        assert len(lines) == len(model_card(model, None).splitlines())
