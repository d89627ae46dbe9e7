"""The service's OpenAPI document, made from the structs that requests are decoded into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from serving.wire import ErrorAnswer

API_VERSION = "1"
_REF = "#/components/schemas/{name}"
_REFUSALS = {
    "400": "The body is not JSON, or did not come in time",
    "403": "The request comes from a web page",
    "404": "Nothing of that name is known",
    "409": "`min_sequence` has not been reached",
    "413": "The body is too large",
    "422": "A field is missing, not known, or has a value that it cannot have",
    "503": "The service cannot answer now; apply the static rate or the one in force, whichever is higher",
}
_REFUSALS_OF = {"GET": ("403", "503"), "POST": ("400", "403", "413", "422", "503")}
_MORE_REFUSALS = {"/v1/accounts/{account_id}": ("404",), "/v1/score": ("404", "409")}


class Operation(NamedTuple):
    """One route: what it takes as JSON, and what it gives (None: no body, or one of another sort)."""

    method: str
    path: str
    summary: str
    takes: Any
    gives: Any


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these operations, as plain values in a stable order."""
    kinds = [kind for entry in operations for kind in (entry.takes, entry.gives) if kind is not None]
    schemas, components = msgspec.json.schema_components([*kinds, ErrorAnswer], ref_template=_REF)
    found = dict(zip(kinds, schemas, strict=False))
    paths: dict[str, Any] = {}
    for entry in operations:
        content = _json(found[entry.gives]) if entry.gives is not None else {}
        answers: dict[str, Any] = {"200": {"description": "The answer", **content}}
        for status in sorted((*_REFUSALS_OF[entry.method], *_MORE_REFUSALS.get(entry.path, ()))):
            answers[status] = {"description": _REFUSALS[status], **_json(schemas[-1])}
        operation: dict[str, Any] = {"summary": entry.summary, "operationId": _name(entry)}
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
        "components": {"schemas": components},
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _name(entry: Operation) -> str:
    """Such as `get_v1_accounts`."""
    parts = [part for part in entry.path.replace(".", "_").split("/") if part and not part.startswith("{")]
    return "_".join([entry.method.lower(), *parts])
