"""Starting the service: what is refused before it listens, and what it begins with."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from exchange.errors import InputError
from pipelines import serve
from pipelines.cli import run as perprisk
from pipelines.warmup import warm_up
from serving.wire import ScoreRequest
from tests.serving import stories as tell
from tests.serving.started import started
from tests.serving.stories import FakeScorer, send, story


@pytest.fixture(autouse=True)
def log_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "events"
    monkeypatch.setenv(serve.LOG_FOLDER, str(folder))
    return folder


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "", "127.0.0.1 "])
def test_only_this_machine_itself_is_listened_to(host: str) -> None:
    with pytest.raises(InputError, match="--host"):
        serve.bind(host, 0)


def test_a_port_that_is_taken_is_told() -> None:
    with serve.bind("localhost", 0) as listener:
        listener.listen()
        with pytest.raises(InputError, match="--port"):
            serve.bind("127.0.0.1", listener.getsockname()[1])


def test_ipv6_is_listened_to_where_there_is_any() -> None:
    try:
        listener = serve.bind("::1", 0)
    except InputError:
        pytest.skip("this machine has no IPv6 loopback")
    with listener:
        assert listener.family is socket.AF_INET6


@pytest.mark.parametrize("made", ["nothing", "a file", "an empty folder"])
def test_what_is_no_model_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], made: str
) -> None:
    model = tmp_path / "model"
    if made == "a file":
        model.write_text("")
    elif made == "an empty folder":
        model.mkdir()
    assert perprisk(["serve", "--model", str(model), "--port", "0"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {model}")
    assert told.count("\n") == 1


def test_a_log_folder_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(serve.LOG_FOLDER, str(tmp_path / "file"))
    with pytest.raises(InputError, match=serve.LOG_FOLDER):
        serve.begin(None)


def test_every_beginning_has_a_log_of_its_own(
    log_folder: Path, small_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with started(FakeScorer(), None) as bare:
        send(bare, story())
        with started(FakeScorer(), small_dataset) as warm:
            assert warm.sequence == 0
            assert len(list(log_folder.glob("*.log"))) == 2
            with pytest.raises(InputError, match="another service"):
                serve.begin(small_dataset)
    with started(FakeScorer(), None) as again:
        assert again.sequence == len(story())
        assert again.venue.digest() == bare.venue.digest()
    assert f"{len(story())} events recovered" in capsys.readouterr().err


def test_a_snapshot_spares_what_it_knows(log_folder: Path) -> None:
    with started(FakeScorer(), None) as engine:
        send(engine, story()[:10])
        engine.snapshot()
        send(engine, story()[10:])
    [newest] = log_folder.glob("*.snapshot")
    with started(FakeScorer(), None) as again:
        assert again.sequence == len(story())
        assert again.venue.digest() == engine.venue.digest()
    newest.write_bytes(newest.read_bytes()[:-1])
    with started(FakeScorer(), None) as from_the_log:
        assert from_the_log.venue.digest() == engine.venue.digest()


def test_a_dataset_is_where_the_service_begins(small_dataset: Path) -> None:
    with started(FakeScorer(), small_dataset) as engine:
        vectors = engine.venue.open_vectors()
        assert len(vectors.account) > 0
        name = engine.venue.account_names[int(vectors.account[0])]
        assert engine.score(ScoreRequest(name)).initial_margin_rate > 0.0
        late = {**tell.transfer(0, name, 1.0), "time": "2000-01-01T00:00:00Z"}
        assert [entry.code for entry in engine.take(tell.asked([late])).rejected] == ["late"]


def test_the_first_caller_finds_everything_compiled() -> None:
    scorer = FakeScorer()
    warm_up(scorer)
    assert max(scorer.calls) > 1  # the search for a cure, many levels at once
