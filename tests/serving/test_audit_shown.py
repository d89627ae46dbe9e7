"""Audit logs read again: shown, computed again, and judged from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exchange.errors import InputError
from features import catalog
from features import emit as figure
from features.emit import FEATURES, FIGURES
from features.venue import Venue
from models.bundle import Bundle
from pipelines import audit as stage
from pipelines.cli import run as perprisk
from pipelines.events import event_batches
from pipelines.store import Dataset
from serving.audit import Audit
from serving.chain import files_of
from serving.codec import MSGPACK
from serving.engine import Engine
from serving.evidence import Rows, recomputed
from serving.records import Answered, Read
from serving.scorer import Scorer
from serving.service import Service
from serving.signing import HEADS
from tests.serving.audited import ABOUT, ask, records


@pytest.fixture(scope="module")
def served(small_dataset: Path, small_model: Path, tmp_path_factory: Any) -> tuple[Path, str]:
    """An audit log of a real model's answers, and an account that they are about."""
    folder = tmp_path_factory.mktemp("served") / "audit"
    venue = Venue()
    for batch in event_batches(Dataset.open(small_dataset, "accounts"), None, venue):
        venue.apply(batch)
    engine = Engine(Scorer(Bundle.open(small_model, catalog.fingerprint())), venue=venue)
    service = Service(engine, ABOUT, audit=Audit.open(folder))
    vectors = venue.open_vectors()
    names = [venue.account_names[key] for key in vectors.account.tolist()]
    market = venue.market_names[0]
    for name in names[:20]:
        assert ask(service, body={"account_id": name, "explain": True}).status == 200
    riskiest = names[int(np.nanargmin(vectors.figures[:, figure.MARGIN_RATIO]))]
    orders = [{"market": market, "quantity": 0.5}]
    for more in ({}, {"explain": True, "cure": True}, {"orders": orders, "explain": True}):
        assert ask(service, body={"account_id": riskiest, **more}).status == 200
    assert ask(service, "/v1/score/batch", {"account_ids": [*names, "nobody"]}, MSGPACK).status == 200
    service.close()
    return folder, riskiest


def test_every_answer_can_be_computed_again_from_its_record(
    served: tuple[Path, str], small_model: Path
) -> None:
    scorer = Scorer(Bundle.open(small_model, catalog.fingerprint()))
    count, read = 0, None
    for record in records(served[0]):
        if isinstance(record.content, Read):
            read = record.content
        elif isinstance(record.content, Answered):
            assert read is not None
            assert recomputed(record, read, scorer) == record.content.answer
            count += 1
    assert count == 24
    assert read is not None
    assert len(read.features) < len(catalog.NAMES)  # only what is read is kept


def test_the_log_is_shown_and_recomputed(
    served: tuple[Path, str], small_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, account = served
    command = ["audit", "show", account, "--audit", str(folder)]
    assert perprisk(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["time", "asked"]
    assert any("as it stands, 1 order" in line for line in lines)
    assert any("batch of" in line for line in lines)
    assert all(len(line) < 160 for line in lines)
    assert perprisk([*command, "--recompute", "--model", str(small_model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[-1] for line in lines[1:]} == {"same"}
    assert perprisk([*command, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert len(plain) == len(lines) - 1
    assert plain[0]["answer"]["account_id"] == account
    assert perprisk([*command, "--from", "2200-01-01"]) == 0
    assert capsys.readouterr().out.startswith("no answer")
    assert perprisk([*command, "--recompute"]) == 2


def test_another_answer_in_the_record_is_told(
    served: tuple[Path, str], small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, account = served
    forged = Audit.open(tmp_path / "forged")
    for record in records(folder):
        content = record.content
        if isinstance(content, Read):
            forged.reads(content.model_version, np.array([catalog.index(name) for name in content.features]))
            width = len(content.features)
        elif isinstance(content, Answered):
            features, figures = record.rows(FIGURES)
            whole = np.full((len(features), FEATURES), np.nan)
            whole[:, forged._reading.columns] = features  # type: ignore[union-attr]
            assert width == features.shape[1] or not len(features)
            answer = content.answer.replace(b'"status":"ok"', b'"status":"fallback"')
            forged.append(
                content.route, content.codec, record.request, answer,
                Rows(whole, content.heights, figures, content.row_of, content.instead),
            )  # fmt: skip
    forged.close()
    command = ["audit", "show", account, "--audit", str(tmp_path / "forged"), "--recompute", "--model"]
    assert perprisk([*command, str(small_model)]) == 1
    told = capsys.readouterr()
    assert "DIFFERS" in told.out
    assert "status was fallback, now ok" in told.err


def test_the_command_says_what_is_sound_and_what_it_cannot_know(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(kept, copy)
    assert perprisk(["audit", "head", str(copy), "--out", str(tmp_path / "head")]) == 0
    assert perprisk(["audit", "verify", str(copy)]) == 0
    told = capsys.readouterr().out
    assert "sound" in told
    assert "Without --head" in told
    command = ["audit", "verify", str(copy), "--head", str(tmp_path / "head")]
    assert perprisk([*command, "--public-key", str(kept / "signing.pub")]) == 0
    assert "cannot be told" not in capsys.readouterr().out
    assert perprisk([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["sound"] is True
    files_of(copy)["0"][-1][1].unlink()
    (copy / HEADS).unlink()
    assert perprisk(["audit", "verify", str(copy)]) == 0  # nothing in it says that there was more
    assert perprisk(command) == 1
    assert "wrong: the head given" in capsys.readouterr().out
    assert perprisk(["audit", "verify", str(tmp_path)]) == 2
    assert perprisk(["audit", "verify", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "head").write_text("no head")
    assert perprisk(command) == 2


def test_the_service_opens_the_log_that_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(stage.FOLDER, str(tmp_path / "here"))
    assert stage.open_audit("off") is None
    for mode in ("strict", "group"):
        audit = stage.open_audit(mode, "7")
        assert audit is not None
        assert (audit.mode, audit.worker) == (mode, "7")
        audit.close()
    with pytest.raises(InputError, match="--audit"):
        stage.open_audit("sometimes")
    monkeypatch.setenv(stage.FOLDER, str(tmp_path / "no" / "where"))
    with pytest.raises(InputError, match="cannot be recorded"):
        stage.open_audit("group")
