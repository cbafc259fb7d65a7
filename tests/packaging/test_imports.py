"""What can be imported under which name, and what an import costs."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("plugin", "rankers", "retrieval", "hooks", "feature_repo")
PUBLIC_PACKAGES = (
    "explorank",
    "explorank.rankers",
    "explorank.retrieval",
    "explorank.hooks",
    "explorank.hooks.exploration",
    "explorank.hooks.guards",
    "explorank.hooks.evaluation",
    "explorank.hooks.feedback",
)
HEAVY_MODULES = ("faiss", "feast", "lightgbm", "matplotlib", "pandas", "sentence_transformers", "torch")


@pytest.mark.parametrize("name", PUBLIC_PACKAGES)
def test_public_names_exist(name: str) -> None:
    package = importlib.import_module(name)

    assert package.__doc__
    assert len(set(package.__all__)) == len(package.__all__) > 0
    assert [public for public in package.__all__ if not hasattr(package, public)] == []


@pytest.mark.parametrize("name", ["explorank", "explorank.hooks", "explorank.hooks.exploration"])
def test_importing_loads_nothing_heavy(name: str) -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys, {name}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()

    assert sorted(set(HEAVY_MODULES) & set(loaded)) == []


@pytest.mark.parametrize("folder", [*FOLDERS, "tests", "examples", "benchmarks", "docs"])
def test_no_file_imports_a_folder_by_its_bare_name(folder: str) -> None:
    """`import hooks` from the repository's root would load a second copy of every class in it."""
    offenders = [
        f"{path.relative_to(REPOSITORY)}: {module}"
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for module in imported_modules(path)
        if module.partition(".")[0] in FOLDERS
    ]

    assert offenders == []


def imported_modules(path: Path) -> list[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return plain + [
        node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module and not node.level
    ]
