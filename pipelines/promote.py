"""`perprisk promote`: a verified model in the place that services look at, whole or not at all."""

from __future__ import annotations

import shutil
from pathlib import Path

from exchange.errors import InputError
from features import catalog
from models.bundle import FILES, MANIFEST, SIGNATURE, Bundle
from models.signature import read_private_key, sign
from pipelines.output import atomic_dir
from serving.scorer import Scorer


def run(model: Path, to: Path, key: Path | None) -> int:
    """Copy a model to where it is served from, signed if a private key is given.

    A service that serves the folder takes it over by itself, once it has tried it out. Raises InputError
    for what is no model of this version, or where the folder holds something else.
    """
    private = None if key is None else read_private_key(key)
    if to.exists() and to.resolve() == model.resolve():
        raise InputError(f"--to: {to} is the model itself")
    bundle = Bundle.open(model, catalog.fingerprint())
    Scorer(bundle)  # what cannot be loaded is not promoted
    with atomic_dir(to, MANIFEST) as work:
        for name in (*FILES, MANIFEST):
            shutil.copyfile(model / name, work / name)
        if private is not None:
            (work / SIGNATURE).write_bytes(sign((work / MANIFEST).read_bytes(), private))
        elif (model / SIGNATURE).exists():
            shutil.copyfile(model / SIGNATURE, work / SIGNATURE)
        Bundle.open(work, catalog.fingerprint(), None if private is None else private.public_key())
    print(f"{to}: model {bundle.model_version}{'' if private is None else ', signed'}")
    return 0
