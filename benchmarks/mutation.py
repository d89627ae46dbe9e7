"""Whether the tests of the margin policy would notice a mistake in it: one small change at a time.

    python -m benchmarks.mutation [--module serving/glide.py ...] [--line N ...] [--list] [--json FILE]

A mutant is one module with one operator, number, condition or returned value changed. It survives where
the tests of that module still pass; survivors are listed, and docs/margin_policy.md says of each why. Left
alone are module constants and defaults, whose values are choices, and texts. Compiled functions are run as
they are written, each mutant in a process of its own.
"""

from __future__ import annotations

import argparse
import ast
import copy
import json
import os
import resource
import sys
import time
import types
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

os.environ.update(NUMBA_DISABLE_JIT="1", CI="1")  # as written; the same examples every time

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 30
"""A mutant that takes more processor time has been noticed: it runs in circles."""

TESTS = {
    "exchange/rates.py": ("test_parts", "test_policy"),
    "serving/policy.py": ("test_parts", "test_policy", "test_budget"),
    "serving/parts.py": ("test_parts",),
    "serving/glide.py": ("test_glide",),
    "serving/budget.py": ("test_budget",),
    "serving/switches.py": ("test_switches",),
}
PRELOADED = ("pytest", "hypothesis", "numba", "numpy", "msgspec", "features.venue", "serving.wire")
"""What the tests import and the mutants do not change: loaded once."""

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt), ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult,
}  # fmt: skip
SWAPPED = {"min": "max", "max": "min", "floor": "ceil", "ceil": "floor", "any": "all", "all": "any"}


class Mutant(NamedTuple):
    """One change, told as it was before and after."""

    module: str
    line: int
    before: str
    after: str
    tree: ast.Module


def changes(node: ast.AST) -> Iterator[Callable[[ast.AST], ast.AST]]:
    """What may be done to a node: each takes a copy of it and gives what stands in its place."""
    if isinstance(node, ast.Compare):
        for place, sign in enumerate(node.ops):
            for other in COMPARISONS[type(sign)]:
                yield lambda it, at=place, new=other: (it.ops.__setitem__(at, new()), it)[1]  # type: ignore[misc]
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in ARITHMETIC:
        yield lambda it: (setattr(it, "op", ARITHMETIC[type(it.op)]()), it)[1]  # type: ignore[attr-defined]
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield lambda it: (setattr(it, "op", other_op()), it)[1]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield lambda it: it.operand  # type: ignore[attr-defined]
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda it: ast.Constant(not it.value)  # type: ignore[attr-defined]
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield lambda it: ast.Constant(it.value + 1)  # type: ignore[attr-defined]
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield lambda it: (setattr(it, "test", ast.UnaryOp(ast.Not(), it.test)), it)[1]  # type: ignore[attr-defined]
    elif isinstance(node, ast.Name | ast.Attribute):
        name = node.id if isinstance(node, ast.Name) else node.attr
        if name in SWAPPED:
            field = "id" if isinstance(node, ast.Name) else "attr"
            yield lambda it: (setattr(it, field, SWAPPED[name]), it)[1]
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield lambda _: ast.Return(ast.Constant(0))


def within(node: ast.AST, path: tuple[tuple[str, int | None], ...] = ()) -> Iterator[tuple[ast.AST, tuple]]:
    """Nodes inside functions, and the way to each; no annotations, decorators or defaults."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "args") and not isinstance(node, ast.Call):
            continue
        for place, child in enumerate(value) if isinstance(value, list) else ((None, value),):
            if isinstance(child, ast.AST):
                way = (*path, (name, place))
                outside = isinstance(node, ast.Module | ast.ClassDef)
                if not outside:
                    yield child, way
                if not outside or isinstance(child, ast.FunctionDef | ast.ClassDef):
                    yield from within(child, way)


def mutants(module: str) -> Iterator[Mutant]:
    """Every mutant of a module, from its first line on."""
    tree = ast.parse((ROOT / module).read_text())
    for node, way in within(tree):
        for change in changes(node):
            new = copy.deepcopy(tree)
            holder: ast.AST = new
            for name, place in way[:-1]:
                holder = getattr(holder, name) if place is None else getattr(holder, name)[place]
            name, place = way[-1]
            old = getattr(holder, name) if place is None else getattr(holder, name)[place]
            line, before = old.lineno, first_line(old)
            fresh = ast.copy_location(change(old), node)
            if place is None:
                setattr(holder, name, fresh)
            else:
                getattr(holder, name)[place] = fresh
            yield Mutant(module, line, before, first_line(fresh), ast.fix_missing_locations(new))


def first_line(node: ast.AST) -> str:
    """Enough of a node to know it by."""
    return ast.unparse(node).splitlines()[0]


def survives(mutant: Mutant) -> bool:
    """Whether the tests pass in a process that has the mutant in the module's place."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (PATIENCE_S, PATIENCE_S))
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            code = tested(mutant)
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


def tested(mutant: Mutant) -> int:
    """What pytest says of a mutant, here and now."""
    name = mutant.module.removesuffix(".py").replace("/", ".")
    module = types.ModuleType(name)
    module.__file__ = str(ROOT / mutant.module)
    sys.modules[name] = module
    package, _, short = name.rpartition(".")
    setattr(import_module(package), short, module)
    exec(compile(mutant.tree, mutant.module, "exec"), module.__dict__)
    pytest = import_module("pytest")
    asked = ["-x", "-q", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    for test in TESTS[mutant.module]:
        code = int(pytest.main([*asked, f"tests/serving/{test}.py"]))
        if code:
            return code
    return 0


def main() -> None:
    """Print how many mutants of each module were noticed, and those that were not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--module", action="append", choices=tuple(TESTS), help="this one alone")
    parser.add_argument("--line", action="append", type=int, help="mutants of this line alone")
    parser.add_argument("--list", action="store_true", help="list the mutants, and run nothing")
    parser.add_argument("--json", type=Path, help="write survivors there too")
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    for name in PRELOADED:
        import_module(name)
    loaded = [name for name in TESTS if name.removesuffix(".py").replace("/", ".") in sys.modules]
    settings = import_module("hypothesis").settings
    settings.register_profile("mutants", derandomize=True, deadline=None, database=None)
    settings.load_profile("mutants")
    assert not loaded, f"others would go on with {loaded} as they are"
    survivors = []
    print("module | mutants | noticed | survived | seconds")
    for module in options.module or TESTS:
        found, began = list(mutants(module)), time.perf_counter()
        if options.line:
            found = [each for each in found if each.line in options.line]
        if options.list:
            for each in found:
                print(f"{module}:{each.line}: {each.before}  ->  {each.after}")
            continue
        left = [each for each in found if survives(each)]
        survivors += left
        took_s = time.perf_counter() - began
        print(f"{module} | {len(found)} | {len(found) - len(left)} | {len(left)} | {took_s:.0f}", flush=True)
        for each in left:
            print(f"  {each.module}:{each.line}: {each.before}  ->  {each.after}", flush=True)
    if options.json:
        told = [dict(zip(Mutant._fields[:4], each, strict=False)) for each in survivors]
        options.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
