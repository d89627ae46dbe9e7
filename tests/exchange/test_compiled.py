from __future__ import annotations

import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import exchange.simulation
from exchange.compiled import _Compiled, compiled, lean

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import numpy as np
from exchange.compiled import compiled

@compiled
def root(x):
    if x < 0.0:
        raise ValueError("no root of a negative number")
    return np.sqrt(x)

@compiled
def doubled(x):
    return 2.0 * root(x)

@compiled
def halves(values):
    out = np.empty(len(values))
    for number in range(len(values)):
        out[number] = 0.25 * doubled(values[number])
    return out
"""
CALLER = """
import sys
sys.path.insert(0, {folder!r})
import program
print(program.halves(program.np.array([4.0, 9.0])).tolist())
try:
    program.halves(program.np.array([4.0, -1.0]))
except ValueError as error:
    print(error)
print(sum(program.halves.stats.cache_hits.values()), sum(program.halves.stats.cache_misses.values()))
"""


@compiled
def _inner(values: np.ndarray, times: float) -> float:
    return float(values.sum() * times)


@compiled
def _outer(values: np.ndarray) -> float:
    return _inner(values, 2.0) + _inner(values[1:], 3.0)


@lean
def _last(values: np.ndarray) -> float:
    return float(values[-1])


@lean
def _makes_an_array(count: int) -> float:
    return float(np.zeros(count).sum())


def test_compiled_functions_call_each_other_and_are_called_from_python() -> None:
    values = np.array([1.0, 2.0, 4.0])
    assert _outer(values) == 14.0 + 18.0
    assert _inner(values, 0.5) == 3.5
    assert _last(values) == 4.0


def test_lean_refuses_what_would_make_an_array() -> None:
    with pytest.raises(Exception, match="nopython mode"):
        _makes_an_array(3)


def test_machine_code_is_kept_and_errors_from_within_survive_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PERPRISK_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    said = [
        subprocess.run(
            [sys.executable, "-c", CALLER.format(folder=str(tmp_path))],
            env=environment, capture_output=True, text=True, check=True,
        ).stdout.splitlines()
        for _ in range(2)
    ]  # fmt: skip
    result = ["[1.0, 1.5]", "no root of a negative number"]
    assert said == [[*result, "0 1"], [*result, "1 0"]]


def test_whatever_is_given_a_world_is_lean() -> None:
    counting = []
    taking = 0
    for module in pkgutil.iter_modules(exchange.simulation.__path__, "exchange.simulation."):
        for name, function in vars(importlib.import_module(module.name)).items():
            if isinstance(function, _Compiled) and "World" in str(
                function.py_func.__annotations__.get("world", "")
            ):
                taking += 1
                if function.targetoptions.get("_nrt", True):
                    counting.append(f"{module.name}.{name}")
    assert taking > 50
    assert not counting, "Declare them `@lean`: with counted references the venue is nearly half as fast"
