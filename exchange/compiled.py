"""The one decorator for compiled functions, and where their machine code is kept.

Numba decides whether a cached function is fresh by the source file of that function alone; a
kernel that inlines a function of another module would go on running that function's old code.
The cache folder is therefore named by a digest of every source that may hold compiled code.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba

COMPILED_PACKAGES = ("exchange", "features", "models", "serving")


@cache
def cache_folder() -> Path | None:
    """Folder for machine code, or None where no folder of the user's own can be written.

    `PERPRISK_CACHE_DIR` moves it. Cached code is executed when loaded, so a folder shared with other
    users is never chosen.
    """
    base = os.environ.get("PERPRISK_CACHE_DIR")
    home = Path(base) if base else Path(os.path.expanduser("~")) / ".cache" / "perprisk"
    nearest = home
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not os.access(nearest, os.W_OK):
        return None
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(numba.__version__.encode())
    for package in COMPILED_PACKAGES:
        for source in sorted((root / package).rglob("*.py")):
            digest.update(source.relative_to(root).as_posix().encode())
            digest.update(source.read_bytes())
    return home / "compiled" / digest.hexdigest()[:16]


P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on first call; strict IEEE arithmetic, division by zero gives inf or NaN as in numpy."""
    folder = cache_folder()
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": False}
    if folder is None:
        return numba.njit(**options)(function)
    numba.config.CACHE_DIR = str(folder)
    return numba.njit(cache=True, **options)(function)
