"""`perprisk ingest`: turn files that others published into a dataset."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from exchange.errors import InputError
from pipelines.meta import META
from pipelines.output import check_folder

ADAPTERS = {"binance-vision": "pipelines.binance_vision"}
"""Who published the files, and the module whose `ingest(src, out, terms)` reads them."""


def run(adapter: str, src: Path, out: Path, terms: Path | None) -> int:
    """Write the dataset `out` from the files in the folder `src` and print what there is to know about it.

    `terms` is a file of contract terms, for archives that hold none. Raises InputError where the adapter is
    not known, `out` cannot become a dataset, or the files are not what they should be.
    """
    if adapter not in ADAPTERS:
        raise InputError(f"ADAPTER: {adapter!r} cannot be ingested; known: {', '.join(ADAPTERS)}")
    check_folder(out, META)
    for line in import_module(ADAPTERS[adapter]).ingest(src, out, terms):
        print(line)
    return 0
