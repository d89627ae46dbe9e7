"""The decorators for compiled functions, and where their machine code is kept.

Numba decides whether a cached function is fresh by the source file of that function alone; a
kernel that inlines a function of another module would go on running that function's old code.
The cache folder is therefore named by a digest of every source that may hold compiled code.

Numba also optimises every function and turns it into machine code of its own before it is put into its
callers, and again in each of them, which for deep kernels is most of the time that compiling takes. Here
what one compiled function calls is handed on as it was lowered, and is optimised once, as a part of the
function that Python calls.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba
from numba.core import cgutils, codegen, types
from numba.core.compiler import Compiler
from numba.core.registry import CPUDispatcher
from numba.extending import intrinsic, overload
from numba.np import arrayobj

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


CACHE_LINE = 64

P = ParamSpec("P")
R = TypeVar("R")

STRICT = {"nopython": True, "boundscheck": None, "error_model": "numpy", "fastmath": False}
"""Strict IEEE arithmetic, division by zero gives inf or NaN as in numpy."""
WITHIN = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""What only compiled code calls needs no way in from Python."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on first call; strict IEEE arithmetic, division by zero gives inf or NaN as in numpy."""
    return _compiled(function, {})


def lean(function: Callable[P, R]) -> Callable[P, R]:
    """`compiled` for functions that make no arrays: references to those they are given are not counted.

    Counting them takes nearly half the time of kernels that hand many arrays on. Numba refuses to compile
    what would make an array.
    """
    return _compiled(function, {"_nrt": False})


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """`lean` for what is called once for every event, account or position, and is handed a whole state.

    The tables of a state are passed one word after the other, about a hundred of them, which takes longer
    than many of these functions do. Its code is put in the place of each call instead.
    """
    return _compiled(function, {"_nrt": False, "forceinline": True})


def _compiled(function: Callable[P, R], options: dict[str, Any]) -> Callable[P, R]:
    folder = cache_folder()
    if numba.config.DISABLE_JIT:
        return function
    made = _Compiled(py_func=function, targetoptions=STRICT | options)
    if folder is not None:
        numba.config.CACHE_DIR = str(folder)
        made.enable_caching()
    return made


class _Compiled(CPUDispatcher):  # type: ignore[misc]
    """A function as Python calls it; other compiled functions take `part`, which is not yet machine code."""

    def __init__(self, py_func: Callable[..., Any], targetoptions: dict[str, Any], **options: Any) -> None:
        super().__init__(py_func, targetoptions=targetoptions, **options)
        self.part = CPUDispatcher(py_func, targetoptions=targetoptions | WITHIN, pipeline_class=_PartCompiler)

    @property
    def _numba_type_(self) -> Any:
        return types.Dispatcher(self.part)


class _PartCompiler(Compiler):  # type: ignore[misc]
    def define_pipelines(self) -> Any:
        self.state.library = _Part(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
        return super().define_pipelines()


class _Part(codegen.JITCodeLibrary):  # type: ignore[misc]
    """Code of a function and of all it calls, to be linked into others."""

    def finalize(self) -> None:
        """Link what it calls, and leave optimisation and machine code to whoever is linked with this."""
        self._raise_if_finalized()
        for library in dict.fromkeys(self._linking_libraries):
            self._reload_init.update(library._reload_init)
            self._final_module.link_in(library._get_module_for_linking(), preserve=True)
        self._finalize_dynamic_globals()
        self._declare_environments()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """No address, as there is no machine code."""
        self._ensure_finalized()
        return 0

    def _declare_environments(self) -> None:
        """Make room for the pointers to constants and globals that numba fills for every function."""
        engine = self._codegen._engine
        names = [each.name for each in self._final_module.global_variables]
        missing = [n for n in names if n.startswith("_ZN08NumbaEnv") and not engine.is_symbol_defined(n)]
        if missing:
            text = "\n".join(f'@"{name}" = common global ptr null' for name in missing)
            engine.add_module(codegen.ll.parse_assembly(text))
            engine.finalize_object()


def prefetch(rows: Any, row: int) -> None:
    """Ask for a record of a table to be brought from memory, to be there when it is read some time later.

    For compiled code that goes through large tables in no order; changes nothing but speed.
    """


@overload(prefetch)  # type: ignore[untyped-decorator]
def _prefetch_compiled(rows: Any, row: Any) -> Callable[[Any, Any], None]:
    def fetch(rows: Any, row: Any) -> None:
        _fetch(rows, row)

    return fetch


@intrinsic  # type: ignore[untyped-decorator]
def _fetch(_context: Any, rows: Any, row: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        table = arrayobj.make_array(kind)(context, builder, value=arguments[0])
        place = cgutils.get_item_pointer(context, builder, kind, table, [arguments[1]], wraparound=False)
        start = builder.bitcast(place, cgutils.voidptr_t)
        hint = cgutils.get_or_insert_function(
            builder.module,
            codegen.llvmir.FunctionType(
                codegen.llvmir.VoidType(), [cgutils.voidptr_t, *[cgutils.int32_t] * 3]
            ),
            "llvm.prefetch.p0",
        )
        size = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        for offset in sorted({*range(0, size, CACHE_LINE), size - 1}):
            line = builder.gep(start, [cgutils.intp_t(offset)])
            # to be read or written, to be kept in every cache, data
            builder.call(hint, [line, cgutils.int32_t(0), cgutils.int32_t(3), cgutils.int32_t(1)])
        return context.get_dummy_value()

    return types.void(rows, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def place_at(_context: Any, address: Any) -> Any:
    """The memory at an address, for `numba.carray`; compiled code only, and only of arrays that live on."""

    def generate(_generation: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


carray = numba.carray
