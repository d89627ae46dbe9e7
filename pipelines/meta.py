"""`dataset.json`: what a dataset says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exchange.errors import InputError
from features.tables import FORMAT, KINDS, VERSION, Kind
from pipelines.damage import DatasetError, reading, shown
from pipelines.times import format_time, parse_time_us

META = "dataset.json"
LARGEST_META = 10_000_000


@dataclass(frozen=True)
class Meta:
    """What `dataset.json` says: the venue and the span of its history, microseconds UTC, ends included.

    `more` holds the entries that the format does not know.
    """

    venue: str
    kind: Kind
    start_us: int
    end_us: int
    quote_asset: str = "USD"
    gaps: tuple[Any, ...] = ()
    source: str = ""
    seed: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The entries of `dataset.json`."""
        seed = {} if self.seed is None else {"seed": self.seed}
        return {
            "format": FORMAT,
            "version": VERSION,
            "kind": self.kind,
            "venue": self.venue,
            "quote_asset": self.quote_asset,
            "start": format_time(self.start_us),
            "end": format_time(self.end_us),
            "gaps": list(self.gaps),
            "source": self.source,
            **seed,
            **self.more,
        }

    @classmethod
    def from_json(cls, value: object, place: str) -> Meta:
        """The entries of `dataset.json`, checked; DatasetError, naming `place`, where one is wrong."""
        if not isinstance(value, dict):
            raise DatasetError(f"{place}: must be a JSON object, not {shown(value)}")

        def must(key: str, right: bool, what: str) -> Any:
            if key not in value:
                raise DatasetError(f"{place}: {key} is missing")
            if not right:
                raise DatasetError(f"{place}: {key} must be {what}, not {shown(value[key])}")
            return value[key]

        def text(key: str) -> str:
            return str(must(key, isinstance(value.get(key), str) and value[key] != "", "a text"))

        def time_us(key: str) -> int:
            try:
                return parse_time_us(text(key), key)
            except DatasetError:
                raise
            except (InputError, OverflowError):
                raise DatasetError(f"{place}: {key} {shown(value[key])} is not an ISO 8601 time") from None

        must("format", value.get("format") == FORMAT, f"'{FORMAT}'")
        must("version", value.get("version") == VERSION and type(value["version"]) is int, str(VERSION))
        kind: Kind = must("kind", value.get("kind") in KINDS, " or ".join(f"'{kind}'" for kind in KINDS))
        start_us, end_us = time_us("start"), time_us("end")
        if end_us < start_us:
            raise DatasetError(f"{place}: end {value['end']} is before start {value['start']}")
        gaps, seed = value.get("gaps", []), value.get("seed")
        must("gaps", isinstance(gaps, list), "a list") if "gaps" in value else None
        must("seed", type(seed) is int, "a whole number") if seed is not None else None
        quote_asset = text("quote_asset") if "quote_asset" in value else "USD"
        known = (
            "format",
            "version",
            "kind",
            "venue",
            "quote_asset",
            "start",
            "end",
            "gaps",
            "source",
            "seed",
        )
        more = {key: entry for key, entry in value.items() if key not in known}
        return cls(
            text("venue"),
            kind,
            start_us,
            end_us,
            quote_asset,
            tuple(gaps),
            str(value.get("source", "")),
            seed,
            more,
        )


def read_meta(file: Path) -> Meta:
    """The description in `file`; DatasetError where there is none or it is wrong."""
    if not file.is_file():
        raise DatasetError(f"{file}: no such file; a dataset is a folder with {META}")
    if file.stat().st_size > LARGEST_META:
        raise DatasetError(f"{file}: is too large for a description of a dataset")
    try:
        with reading(file):
            content = file.read_bytes()
        value = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: is not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DatasetError(f"{file}: is not JSON ({error.msg}, line {error.lineno})") from None
    except (RecursionError, ValueError):
        raise DatasetError(f"{file}: is not JSON that makes sense (too deep, or a number too long)") from None
    return Meta.from_json(value, str(file))
