"""Keys: who may call what, and that a file of them can change under a running service."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exchange.errors import InputError
from pipelines import keys as stage
from pipelines.cli import run as perprisk
from pipelines.serve import bind
from serving.codec import JSON
from serving.engine import Engine
from serving.keys import SCOPES, Keys, digest, new_token, read_keys
from serving.service import Call, Reply, Route, Service
from serving.wire import ModelAnswer, RefusalError
from tests.serving import stories as tell

NOW = datetime(2024, 3, 1, tzinfo=UTC)
TOKENS = {name: new_token() for name in ("all", "score", "read", "old", "revoked", "later")}


class Clock:
    """The machine's time and a count of seconds, both set by hand."""

    def __init__(self) -> None:
        self.now = NOW
        self.seconds = 0.0

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds


def entry(name: str, *scopes: str, **more: Any) -> dict[str, Any]:
    created = NOW.isoformat()
    return {"name": name, "scopes": scopes, "sha256": digest(TOKENS[name]), "created": created, **more}


ENTRIES = [
    entry("all", *SCOPES),
    entry("score", "score"),
    entry("read", "read"),
    entry("old", *SCOPES, expires=(NOW - timedelta(days=1)).isoformat()),
    entry("revoked", *SCOPES, revoked=NOW.isoformat()),
    entry("later", *SCOPES, expires=(NOW + timedelta(seconds=10)).isoformat()),
]


def write(path: Path, entries: Any, mode: int = 0o600) -> None:
    new = path.with_suffix(".new")
    new.write_text(entries if isinstance(entries, str) else json.dumps({"keys": entries}))
    new.chmod(mode)
    os.replace(new, path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.json"
    write(path, ENTRIES)
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(file: Path, clock: Clock) -> Keys:
    return Keys(file, lambda: clock.now, lambda: clock.seconds)


@pytest.fixture
def service(engine: Engine, keys: Keys) -> Service:
    return Service(engine, ModelAnswer("fake-1", "f" * 64, "# A model\n"), keys=keys)


CALLS: dict[str, Call] = {
    "/v1/events": Call(JSON.encode({"events": [tell.bar(9, 61_000.0)]})),
    "/v1/score": Call(b'{"account_id": "ann"}'),
    "/v1/score/batch": Call(b'{"account_ids": ["ann"]}'),
    "/v1/accounts/{account_id}": Call(argument="ann"),
}


def called(service: Service, route: Route, key: str | None) -> Reply:
    return service.answer(route, CALLS.get(route.operation.path, Call()), key)


def code(reply: Reply) -> str:
    return str(json.loads(reply.body)["error"]["code"])


def test_every_route_with_every_sort_of_key(service: Service) -> None:
    assert {route.scope for route in service.routes} <= {None, *SCOPES}
    for route in service.routes:
        path, scope = route.operation.path, route.scope
        assert called(service, route, TOKENS["all"]).status == 200, path
        if scope is None:
            assert path.startswith(("/health/", "/openapi"))
            for key in (None, "", "wrong", TOKENS["old"]):
                assert called(service, route, key).status == 200, path
            continue
        for key in (None, ""):
            reply = called(service, route, key)
            assert (reply.status, code(reply)) == (401, "no_key"), path
        others = ("ppr_none", TOKENS["all"][:-1], "x" * 10_000, "\udcff", "é")
        for key in (*others, TOKENS["old"], TOKENS["revoked"]):
            reply = called(service, route, key)
            assert (reply.status, code(reply)) == (401, "wrong_key"), path
        for name in ("score", "read"):
            reply = called(service, route, TOKENS[name])
            if name == scope:
                assert reply.status == 200, path
            else:
                assert (reply.status, code(reply)) == (403, "wrong_scope"), path


def test_what_is_refused_does_nothing(service: Service) -> None:
    before = service.engine.sequence
    events = next(route for route in service.routes if route.operation.path == "/v1/events")
    for key in (None, "wrong", TOKENS["score"]):
        assert called(service, events, key).status in (401, 403)
    assert service.engine.sequence == before


def test_without_a_file_of_keys_everybody_may_do_everything(engine: Engine) -> None:
    service = Service(engine, ModelAnswer("fake-1", "f" * 64, ""))
    for route in service.routes:
        for key in (None, "anything"):
            assert called(service, route, key).status == 200


def test_a_key_ends_when_it_expires(keys: Keys, clock: Clock) -> None:
    assert keys.authorize(TOKENS["later"], "score").name == "later"
    clock.passes(10)
    with pytest.raises(RefusalError) as refused:
        keys.authorize(TOKENS["later"], "score")
    assert refused.value.status == 401


def may(keys: Keys, name: str) -> bool:
    try:
        keys.authorize(TOKENS[name], "score")
    except RefusalError:
        return False
    return True


def test_keys_change_without_a_restart(keys: Keys, file: Path, clock: Clock) -> None:
    write(file, [entry("score", "score"), entry("all", *SCOPES, revoked=NOW.isoformat())])
    assert may(keys, "all")  # the file is not looked at more than once a second
    clock.passes(1)
    assert not may(keys, "all")
    assert may(keys, "score")
    write(file, [entry("all", "score")])
    clock.passes(1)
    assert may(keys, "all")
    assert not may(keys, "score")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"keys": [{"name": "all"}]}', '{"keys": [], "more": 1}', "nothing", "a folder"],
)
def test_a_wrong_new_version_leaves_the_old_one_in_force_and_says_so(
    service: Service, keys: Keys, file: Path, clock: Clock, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    if content in ("nothing", "a folder"):
        file.unlink()
        if content == "a folder":
            file.mkdir()
    else:
        write(file, content)
    ready = next(route for route in service.routes if route.operation.path == "/health/ready")
    assert "warnings" not in json.loads(called(service, ready, None).body)
    for _ in range(3):
        clock.passes(1)
        assert may(keys, "all")
    told = json.loads(called(service, ready, None).body)
    assert "stay in force" in told["warnings"][0]
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
    if file.is_dir():
        file.rmdir()
    write(file, [entry("score", "score")])
    clock.passes(1)
    assert not may(keys, "all")
    assert may(keys, "score")
    assert keys.fault is None


def test_a_file_that_comes_back_as_it_was_is_no_fault(keys: Keys, file: Path, clock: Clock) -> None:
    aside = file.with_suffix(".aside")
    file.rename(aside)
    clock.passes(1)
    assert may(keys, "all")
    assert keys.fault is not None
    aside.rename(file)
    clock.passes(1)
    assert may(keys, "all")
    assert keys.fault is None


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ("", "no file of keys"),
        ('{"keys": 5}', "no file of keys"),
        ([{**ENTRIES[0], "sha256": "5"}], "sha256"),
        ([{**ENTRIES[0], "scopes": []}], "scopes"),
        ([{**ENTRIES[0], "scopes": ["everything"]}], "scopes"),
        ([{**ENTRIES[0], "name": "a\nb"}], "name"),
        ([{**ENTRIES[0], "token": "x"}], "token"),
        ([{**ENTRIES[0], "expires": "soon"}], "expires"),
        ([ENTRIES[0], {**ENTRIES[1], "sha256": ENTRIES[0]["sha256"]}], "one token"),
    ],
)
def test_a_wrong_first_version_is_refused(tmp_path: Path, entries: Any, says: str) -> None:
    write(tmp_path / "keys", entries)
    with pytest.raises(InputError, match=says) as refused:
        Keys(tmp_path / "keys")
    assert ENTRIES[0]["sha256"] not in str(refused.value)


def test_a_file_that_others_can_read_is_told(
    file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    file.chmod(0o640)
    keys = Keys(file, since=lambda: clock.seconds)
    assert "chmod 600" in (keys.fault or "")
    assert "chmod 600" in caplog.text
    file.chmod(0o600)
    clock.passes(1)
    assert may(keys, "all")
    assert keys.fault is None


def test_no_token_is_told_to_anybody(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    replies = [called(service, route, token) for route in service.routes for token in TOKENS.values()]
    for token in TOKENS.values():
        assert token not in caplog.text
        assert digest(token) not in caplog.text
        assert all(token.encode() not in reply.body for reply in replies)


# -- the command


def token_of(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.strip()


def test_keys_are_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys.json"
    assert perprisk(["keys", "add", str(file), "engine-1", "--scope", "score", "--scope", "events"]) == 0
    token = token_of(capsys)
    assert token.startswith("ppr_")
    assert len(token) >= 40
    assert token not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    keys = stage.open_keys(file)
    assert keys is not None
    assert keys.fault is None
    assert keys.authorize(token, "events").name == "engine-1"
    assert perprisk(["keys", "add", str(file), "engine-1", "--scope", "read"]) == 2
    assert "has a key already" in capsys.readouterr().err
    assert perprisk(["keys", "add", str(file), "past", "--scope", "read", "--expires", "2020-01-01"]) == 0
    capsys.readouterr()
    assert perprisk(["keys", "revoke", str(file), "engine-1"]) == 0
    with pytest.raises(RefusalError):
        Keys(file).authorize(token, "events")
    assert perprisk(["keys", "revoke", str(file), "engine-1"]) == 2
    assert perprisk(["keys", "add", str(file), "engine-1", "--scope", "read"]) == 0
    capsys.readouterr()
    assert perprisk(["keys", "list", str(file)]) == 0
    told = capsys.readouterr().out
    assert [line.split()[:2] for line in told.splitlines()] == [
        ["engine-1", "revoked"], ["past", "expired"], ["engine-1", "in"],
    ]  # fmt: skip
    assert not any(key.sha256 in told for key in read_keys(file))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", "FILE", "a", "--scope", "everything"], "everything"),
        (["add", "FILE", "a b", "--scope", "read"], "a b"),
        (["add", "nowhere/FILE", "a", "--scope", "read"], "nowhere"),
        (["revoke", "FILE", "a"], "FILE"),
        (["list", "FILE"], "FILE"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert perprisk(["keys", *arguments]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert says in told


# -- where it may listen


def test_other_addresses_need_keys() -> None:
    with pytest.raises(InputError, match="--keys"):
        bind("0.0.0.0", 0)
    bind("0.0.0.0", 0, keyed=True).close()
    with pytest.raises(InputError, match="not an address"):
        bind("example.org", 0, keyed=True)
