"""The rules of the house that no linter knows; what a failing test says is what to do."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import typer
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from exchange.compiled import COMPILED_PACKAGES
from pipelines import feature_docs
from pipelines.cli import app

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("exchange", "features", "models", "serving", "pipelines")
LONGEST_FILE = 500
LARGEST_FILE_BYTES = 2 * 1024 * 1024
STORED_CODE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
READS_SETTINGS = re.compile(r"pipelines/|serving/app\.py|exchange/compiled\.py")
SETS_SWITCHES = re.compile(
    r"models/registry\.py:\d+: os\.environ\.setdefault\("
)  # MLflow takes them no other way


@cache
def files() -> tuple[Path, ...]:
    """Everything that is or is about to be in the repository, relative to its root."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip("not a git checkout: what belongs to the repository is not known")
    names = sorted(set(filter(None, listing.stdout.split("\0"))))
    return tuple(Path(name) for name in names if (ROOT / name).is_file())


def texts(*suffixes: str) -> Iterator[tuple[Path, str]]:
    for path in files():
        if not suffixes or path.suffix in suffixes:
            try:
                yield path, (ROOT / path).read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue  # a picture or a table


def found(pattern: str, *suffixes: str) -> list[str]:
    expression = re.compile(pattern)
    return [
        f"{path}:{number}: {line.strip()[:120]}"
        for path, text in texts(*suffixes)
        for number, line in enumerate(text.splitlines(), 1)
        if expression.search(line)
    ]


def fail_if(places: list[str], remedy: str) -> None:
    assert not places, f"{remedy}\n" + "\n".join(places)


def test_no_path_of_a_machine() -> None:
    fail_if(
        found(r"(^|[^\w.])/(work|farm|root|home)/"), "Make the path relative, or take it from an argument:"
    )


def test_no_address_of_a_package_registry() -> None:
    fail_if(
        found(r"https?://[\w.-]*(pypi|pythonhosted|npmjs|debian)\b"),
        "Name packages, never the registry that serves them (for the lock: make lock):",
    )


def test_nothing_is_left_to_do_later() -> None:
    fail_if(
        found(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"),
        "Do it, or file it as an issue and take the note out:",
    )


def test_a_file_holds_one_idea() -> None:
    fail_if(
        [
            f"{path}: {text.count(chr(10))} lines"
            for path, text in texts(".py")
            if text.count("\n") > LONGEST_FILE
        ],
        f"Split by idea, each with its main thing first; at most {LONGEST_FILE} lines:",
    )


def test_no_large_file() -> None:
    sizes = {path: (ROOT / path).stat().st_size for path in files()}
    fail_if(
        [f"{path}: {size:,} bytes" for path, size in sizes.items() if size > LARGEST_FILE_BYTES],
        "Generate it, or read it from PERPRISK_DATA:",
    )


def test_nothing_is_stored_as_code() -> None:
    places = []
    for path, text in texts(".py"):
        for node in ast.walk(ast.parse(text)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                names = (
                    [] if isinstance(node.value, ast.Constant) and node.value.value is False else ["pickle"]
                )
            places += [f"{path}:{node.lineno}: {name}" for name in names if name.split(".")[0] in STORED_CODE]
    fail_if(places, "Loading such a file runs what it holds: store arrays, JSON, Parquet or ONNX:")


def test_compiled_code_goes_through_the_one_decorator() -> None:
    by_hand = [
        place for place in found(r"^\s*(import|from) numba\b", ".py") if "exchange/compiled.py" not in place
    ]
    fail_if(
        by_hand, "Use `compiled`, `lean` or `inlined` of exchange.compiled, whose cache knows every source:"
    )
    outside = [
        place
        for place in found(r"^@(compiled|lean|inlined)\b", ".py")
        if not place.startswith((*(f"{name}/" for name in COMPILED_PACKAGES), "tests/"))
    ]
    fail_if(
        outside, "Add the package to COMPILED_PACKAGES in exchange/compiled.py, or the cache may go stale:"
    )


def test_settings_are_read_at_the_edge() -> None:
    inside = [
        place
        for place in found(r"\bos\.(environ|getenv)\b|\bfrom os import .*\b(environ|getenv)\b", ".py")
        if place.startswith(PACKAGES) and not READS_SETTINGS.match(place) and not SETS_SWITCHES.match(place)
    ]
    fail_if(inside, "Read the environment in pipelines/ or serving/app.py and pass the value down:")


def test_tests_are_no_package() -> None:
    fail_if(
        [str(path) for path in files() if path.parts[0] == "tests" and path.name == "__init__.py"],
        "Take it out: tests are imported by path, and a package there would shadow the one under test:",
    )


def test_every_folder_of_code_is_a_package() -> None:
    packages = {path.parent for path in files() if path.parts[0] in PACKAGES and path.suffix == ".py"}
    fail_if(
        [str(folder) for folder in packages if not (ROOT / folder / "__init__.py").is_file()],
        "Give it an __init__.py with a docstring of one line:",
    )


def test_importing_does_nothing(tmp_path: Path) -> None:
    modules = [
        ".".join(path.with_suffix("").parts)
        for path in files()
        if path.parts[0] in PACKAGES and path.suffix == ".py" and path.name != "__init__.py"
    ]
    home = tmp_path / "home"
    home.mkdir()
    libraries = tmp_path / "libraries"  # what matplotlib and its like keep for themselves
    code = (
        f"import importlib, logging, os\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(len(logging.getLogger().handlers), os.listdir('.'))"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(home)}
    environment |= {
        "MPLCONFIGDIR": str(libraries),
        "PERPRISK_CACHE_DIR": str(libraries),  # numba tries its cache folder when a function is declared
        "XDG_CACHE_HOME": str(libraries),
        "XDG_CONFIG_HOME": str(libraries),
    }
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 []\n", (
        f"Move it into a function; importing set up logging or made files: {done.stdout}"
    )


@cache
def locked() -> dict[str, tuple[str, int]]:
    """Version and number of hashes of every locked distribution."""
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text())
    parsed = {}
    for entry in entries:
        head = re.match(r"([A-Za-z0-9._-]+)(?:\[.*?\])?==([^\s;\\]+)", entry)
        if head:
            parsed[canonicalize_name(head[1])] = (head[2], entry.count("--hash=sha256:"))
    return parsed


def test_the_lock_has_a_hash_for_everything_and_says_not_where_from() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    odd = [
        line
        for line in lines
        if not re.match(r"#|\s+#|\s+--hash=sha256:[0-9a-f]{64}( \\)?$|[\w.\[\]-]+==", line)
    ]
    fail_if(odd, "Only pins and hashes belong in the lock; renew it with: make lock")
    fail_if(
        [name for name, (_, hashes) in locked().items() if not hashes], "No hash; renew it with: make lock"
    )


def test_the_lock_holds_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [
        Requirement(text) for text in project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    ]
    missing = [
        str(want)
        for want in asked
        if (have := locked().get(canonicalize_name(want.name))) is None or have[0] not in want.specifier
    ]
    fail_if(missing, "Asked for in pyproject.toml and not so in requirements.lock; renew it with: make lock")


def test_every_command_is_in_the_readme() -> None:
    readme = ROOT / "README.md"
    assert readme.is_file(), (
        "Write README.md: what it is, who it is for, the two commands, every perprisk command"
    )
    text = readme.read_text()
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    fail_if(
        [name for name in commands if f"perprisk {name}" not in text],
        "Say in README.md what the command does:",
    )


def test_the_features_are_documented_as_they_are() -> None:
    printed = feature_docs.page()
    assert (ROOT / "docs" / "features.md").read_text() == printed, "The catalogue has changed: make docs"


def test_what_the_texts_say_to_make_can_be_made() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    promised = [
        f"{path}: make {target}"
        for path, text in texts(".md")
        for target in re.findall(r"(?:`|^|\n\s*)make ([a-z]+)", text)
        if target not in targets
    ]
    fail_if(promised, "The Makefile has no such target:")


def test_links_in_the_texts_lead_somewhere() -> None:
    broken = [
        f"{path}: {target}"
        for path, text in texts(".md")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        if "://" not in target and not (ROOT / path.parent / target).exists()
    ]
    fail_if(broken, "Mend the link, or add what it points to:")


def test_decisions_are_numbered_one_by_one() -> None:
    numbers = [int(path.name[:4]) for path in files() if path.parts[:2] == ("docs", "decisions")]
    assert numbers == list(range(1, len(numbers) + 1)), (
        "Name a decision docs/decisions/NNNN-what.md, without gaps"
    )
