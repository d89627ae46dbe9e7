"""Every route with every sort of key, over HTTP on a port and over the socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from serving.front import Front
from serving.keys import SCOPES, Keys, new_token
from serving.service import Service
from tests.serving import stories as tell
from tests.serving.served import ABOUT, PATIENT, served
from tests.serving.test_keys import digest, write
from tests.serving.test_unix import ask

TOKENS = {name: new_token() for name in ("all", "revoked", "expired", *SCOPES)}


class Doors(NamedTuple):
    """A service with keys: its port, its socket, and its routes with their scopes."""

    port: int
    socket: Path
    service: Service


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    folder = tmp_path_factory.mktemp("keys")
    created = "2024-03-01T00:00:00Z"
    entries: list[dict[str, Any]] = [
        {"name": name, "scopes": [name] if name in SCOPES else SCOPES, "sha256": digest(token),
         "created": created}
        for name, token in TOKENS.items()
    ]  # fmt: skip
    entries[1]["revoked"] = created
    entries[2]["expires"] = "2024-03-02T00:00:00Z"
    write(folder / "keys.json", entries)
    service = Service(tell.told(tell.story()), ABOUT, PATIENT, keys=Keys(folder / "keys.json"))
    with served(Front(service), folder / "s") as port:
        yield Doors(port, folder / "s", service)


BODIES: dict[str, Any] = {
    "/v1/events": {"events": []},
    "/v1/score": {"account_id": "ann"},
    "/v1/score/batch": {"account_ids": ["ann"]},
}


def over_http(doors: Doors, method: str, path: str, key: str | None) -> tuple[int, str | None]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    body = BODIES.get(path)
    path = path.replace("{account_id}", "ann")
    reply = httpx.request(
        method, f"http://127.0.0.1:{doors.port}{path}", json=body, headers=headers, timeout=60
    )
    if reply.status_code == 200:
        return 200, None
    assert reply.status_code != 401 or reply.headers["www-authenticate"].startswith("Bearer")
    return reply.status_code, str(reply.json()["error"]["code"])


def over_socket(doors: Doors, _method: str, path: str, key: str | None) -> tuple[int, str | None]:
    asked = {"route": path.replace("{account_id}", "ann"), "body": BODIES.get(path)}
    told = ask(doors.socket, asked if key is None else {**asked, "key": key})[0]
    return told["status"], None if told["status"] == 200 else str(told["body"]["error"]["code"])


@pytest.mark.parametrize("way", [over_http, over_socket])
def test_every_route_asks_for_its_key(doors: Doors, way: Any) -> None:
    before = doors.service.engine.venue.digest()
    asked = 0
    for route in doors.service.routes:
        operation, scope = route.operation, route.scope
        call = (doors, operation.method, operation.path)
        assert way(*call, TOKENS["all"]) == (200, None), call
        if scope is None:
            assert way(*call, None) == way(*call, "wrong") == way(*call, TOKENS["revoked"]) == (200, None)
            continue
        assert way(*call, None) == (401, "no_key"), call
        for key in ("wrong", TOKENS["all"][:-1], "x" * 5_000, TOKENS["revoked"], TOKENS["expired"]):
            assert way(*call, key) == (401, "wrong_key"), call
        for other in SCOPES:
            told = (200, None) if other == scope else (403, "wrong_scope")
            assert way(*call, TOKENS[other]) == told, (call, other)
            asked += 1
    assert asked == len(SCOPES) * sum(route.scope is not None for route in doors.service.routes)
    assert doors.service.engine.venue.digest() == before


def test_other_ways_to_show_a_key_are_none(doors: Doors) -> None:
    url = f"http://127.0.0.1:{doors.port}/v1/model"
    token = TOKENS["all"]
    for headers in ({"Authorization": f"Basic {token}"}, {"Authorization": token}, {"X-Api-Key": token},
                    {"Cookie": f"key={token}"}, {"Authorization": "Bearer"}):  # fmt: skip
        assert httpx.get(url, headers=headers, timeout=60).status_code == 401, headers
    assert httpx.get(url, params={"key": token}, timeout=60).status_code == 401
    assert json.loads(httpx.get(url, timeout=60).content)["error"]["code"] == "no_key"
