"""The service's OpenAPI document, made from the structs that requests are decoded into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from serving.wire import ErrorAnswer

API_VERSION = "1"
_REF = "#/components/schemas/{name}"
_REFUSALS = {
    "400": "This is not HTTP or the body is no JSON, or it did not come in time",
    "401": "No key was shown, or one that is not known",
    "403": "The key may not do this, or the request comes from a web page",
    "404": "Nothing of that name is known",
    "409": "`min_sequence` has not been reached",
    "413": "The body is too large",
    "422": "A field is missing, not known, or has a value that it cannot have",
    "431": "Request line and headers are too large",
    "503": "The service cannot answer now; apply the static rate or the one in force, whichever is higher",
}
_ALWAYS = ("400", "403", "431", "503")
_WITH_BODY = ("413", "422")
_WITH_KEY = ("401",)
_MORE_REFUSALS = {"/v1/accounts/{account_id}": ("404",), "/v1/score": ("404", "409")}
_RETRY_AFTER = {"description": "Seconds after which to ask again", "schema": {"type": "integer"}}
_CHALLENGE = {"description": "`Bearer`", "schema": {"type": "string"}}
_HEADERS = {"401": {"WWW-Authenticate": _CHALLENGE}, "503": {"Retry-After": _RETRY_AFTER}}
_KEY = "key"


class Operation(NamedTuple):
    """One route: what it takes as JSON, and what it gives (None: no body, or one of another sort).

    `scope` is what a key must allow; a route without one answers everybody.
    """

    method: str
    path: str
    summary: str
    takes: Any
    gives: Any
    scope: str | None = None


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these operations, as plain values in a stable order."""
    kinds = [kind for entry in operations for kind in (entry.takes, entry.gives) if kind is not None]
    schemas, components = msgspec.json.schema_components([*kinds, ErrorAnswer], ref_template=_REF)
    found = dict(zip(kinds, schemas, strict=False))
    paths: dict[str, Any] = {}
    for entry in operations:
        content = _json(found[entry.gives]) if entry.gives is not None else {}
        answers: dict[str, Any] = {"200": {"description": "The answer", **content}}
        for status in _refusals(entry):
            answers[status] = {"description": _REFUSALS[status], **_json(schemas[-1])}
            if status in _HEADERS:
                answers[status]["headers"] = _HEADERS[status]
        operation: dict[str, Any] = {"summary": entry.summary, "operationId": _name(entry)}
        if entry.scope is not None:
            operation["description"] = f"Where keys are asked for, one with the scope `{entry.scope}`."
            operation["security"] = [{_KEY: []}, {}]
        if entry.takes is not None:
            operation["requestBody"] = {"required": True, **_json(found[entry.takes])}
        if "{account_id}" in entry.path:
            text = {"type": "string", "minLength": 1}
            operation["parameters"] = [{"name": "account_id", "in": "path", "required": True, "schema": text}]
        paths.setdefault(entry.path, {})[entry.method.lower()] = operation | {"responses": answers}
    return {
        "openapi": "3.1.0",
        "info": {"title": "perprisk", "version": API_VERSION},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer"}},
        },
    }


def _refusals(entry: Operation) -> list[str]:
    """Every status but 200 that an operation can have."""
    return sorted(
        {
            *_ALWAYS,
            *(_WITH_BODY if entry.takes is not None else ()),
            *(_WITH_KEY if entry.scope is not None else ()),
            *_MORE_REFUSALS.get(entry.path, ()),
        }
    )


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _name(entry: Operation) -> str:
    """Such as `get_v1_accounts`."""
    parts = [part for part in entry.path.replace(".", "_").split("/") if part and not part.startswith("{")]
    return "_".join([entry.method.lower(), *parts])
