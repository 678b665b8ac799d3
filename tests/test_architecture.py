"""Which way imports go, and what the code may not hold: read from the sources, nothing is imported."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
parse = cache(ast.parse)  # each file once, for all who read it
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "mofme").rglob("*.py"))}

# Each part may import itself, what is named here, and what every part may.
ARROWS = {
    "core": set(),
    "measure": set(),
    "vision": {"core", "measure"},
    "language": {"core", "measure"},
    "papers": {"core", "measure", "vision", "language"},
    "ui": {"core", "measure", "vision", "language", "papers"},
    "cli": {"core", "measure", "vision", "language", "papers", "ui", "__init__"},
    "errors": set(),
    "files": set(),
    "_torchvision": set(),
    "__init__": {"core", "vision", "language", "papers"},  # the names that users import
    "__main__": {"cli"},
}
# A paper may build on another only where it says so here.
BETWEEN_PAPERS = {
    ("router_robustness", "carrot"),
    ("moe_distillation", "ladimo"),
    ("r2t2", "ladimo"),
    ("r2t2", "mixture_of_routers"),
}
# Who may import the libraries of the window and of the command line: these parts, and these files of a paper.
SURFACES = {"gradio": ({"ui"}, "tab"), "typer": ({"cli", "ui"}, "command")}
FOR_ALL = {"errors", "files", "_torchvision"}
VAGUE = {"utils", "util", "helpers", "helper", "common", "base", "misc"}
PICKLES = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
LONG, MAX_LINES = 350, 500  # a file that is long is an exception


def part_of(path: Path) -> str:
    return path.relative_to(ROOT / "mofme").parts[0].removesuffix(".py")


def imported_modules(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """All that a module names in its imports, relative ones resolved against its package."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                modules = [name.name for name in names]
            case ast.ImportFrom(module=module, level=level, names=names):
                start = package[: len(package) - level + 1] if level else []
                origin = ".".join([*start, *([module] if module else [])])
                modules = [f"{origin}.{name.name}" for name in names]
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                modules = [name]
            case _:
                continue
        yield from modules


def breaches(source: str, path: Path) -> list[str]:
    """What a file imports and may not."""
    here = path.relative_to(ROOT / "mofme")
    part, paper = part_of(path), here.parts[1] if len(here.parts) > 2 else ""
    allowed = ARROWS.get(part, set()) | {part} | FOR_ALL
    if part == "papers" and here.stem.startswith("tab"):
        allowed = allowed | {"ui"}
    if part == "papers" and here.stem == "command":
        allowed = allowed | {"cli"}

    def may(module: str) -> bool:
        match module.split("."):
            case ["mofme", "papers", other, *_] if part == "papers" and other != paper:
                return (paper, other) in BETWEEN_PAPERS
            case ["mofme", name, *_] if name in ARROWS:
                return name in allowed
            case ["mofme", *_]:
                return "__init__" in allowed
            case [library, *_] if library in SURFACES:
                parts, stem = SURFACES[library]
                return part in parts or (part == "papers" and here.stem.startswith(stem))
        return True

    package = list(path.relative_to(ROOT).parent.parts)
    return [module for module in imported_modules(parse(source), package) if not may(module)]


def test_arrows_go_one_way() -> None:
    assert {part_of(path) for path in SOURCES} <= ARROWS.keys()
    wrong = {str(path): breaches(source, path) for path, source in SOURCES.items()}
    assert {path: parts for path, parts in wrong.items() if parts} == {}


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("mofme/core/moe.py", "from mofme.vision import picture"),
        ("mofme/core/moe.py", "import mofme.vision.picture.file"),
        ("mofme/core/routers.py", "def f():\n    from ..vision import picture"),
        ("mofme/vision/picture/file.py", "from mofme import ui"),
        ("mofme/vision/picture/file.py", "from ...cli import restore"),
        ("mofme/ui/window.py", "import importlib\nimportlib.import_module('mofme.cli.restore')"),
        ("mofme/errors.py", "from mofme.core import moe"),
        ("mofme/vision/picture/file.py", "from mofme import TrainedRouter"),
        ("mofme/language/text.py", "from mofme.papers.carrot import carrot"),
        ("mofme/papers/carrot/carrot.py", "from mofme.papers.router_robustness import probes"),
        ("mofme/papers/carrot/carrot.py", "from mofme.ui.work import work"),
        ("mofme/papers/carrot/carrot.py", "import gradio as gr"),
        ("mofme/papers/carrot/tab.py", "import typer"),
        ("mofme/vision/training.py", "import gradio"),
    ],
)
def test_a_wrong_arrow_is_seen(file: str, source: str) -> None:
    assert breaches(source, ROOT / file)


def test_files_are_short() -> None:
    lengths = {str(path): len(source.splitlines()) for path, source in SOURCES.items()}
    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}
    assert sum(length > LONG for length in lengths.values()) <= len(lengths) // 30


def test_names_say_what_is_inside() -> None:
    names = {part for path in SOURCES for part in path.relative_to(ROOT).with_suffix("").parts}
    assert names & VAGUE == set()


def test_users_never_meet_an_assert() -> None:
    asserts = {path: sum(isinstance(node, ast.Assert) for node in ast.walk(parse(SOURCES[path]))) for path in SOURCES}
    assert [str(path) for path, count in asserts.items() if count] == []


def unpickling(source: str) -> list[int]:
    """Lines that could execute what a file says: pickle in any form, torch.load without weights_only=True."""
    lines = []
    for node in ast.walk(parse(source)):
        match node:
            case ast.Import(names=names) if any(name.name.split(".")[0] in PICKLES for name in names):
                lines.append(node.lineno)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in PICKLES:
                lines.append(node.lineno)
            case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load"), keywords=keywords):
                if "weights_only=True" not in map(ast.unparse, keywords):
                    lines.append(node.lineno)
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                lines.append(node.lineno)
    return lines


def test_no_file_is_executed_by_reading_it() -> None:
    assert [f"{path}:{line}" for path, source in SOURCES.items() for line in unpickling(source)] == []


@pytest.mark.parametrize(
    "source", ["import pickle", "from joblib import load", "torch.load(p)", "torch.load(p, weights_only=False)"]
)
def test_unpickling_is_seen(source: str) -> None:
    assert unpickling(source)
