"""The wheel holds all of the package and nothing else, and works where nothing but it is installed."""

import configparser
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

IMPORT_EVERY_MODULE = """
import importlib, pkgutil, explorank.hooks
for module in pkgutil.walk_packages(explorank.hooks.__path__, "explorank.hooks."):
    importlib.import_module(module.name)
"""
PACKAGES = {
    "plugin": "explorank",
    "rankers": "explorank/rankers",
    "retrieval": "explorank/retrieval",
    "hooks": "explorank/hooks",
    "feature_repo": "explorank/feature_repo",
}


@pytest.fixture(scope="module")
def contents(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_holds_every_file_of_the_packages_and_no_other(contents: set[str], clean_copy: Path) -> None:
    expected = {
        f"{package}/{path.relative_to(clean_copy / folder).as_posix()}"
        for folder, package in PACKAGES.items()
        for path in (clean_copy / folder).rglob("*")
        if path.is_file()
    }

    packaged = {name for name in contents if ".dist-info/" not in name}

    assert sorted(packaged - expected) == []
    assert sorted(expected - packaged) == []


@pytest.mark.parametrize("name", ["explorank/py.typed", "explorank/feature_repo/feature_store.yaml"])
def test_holds_what_is_read_as_data(contents: set[str], name: str) -> None:
    assert name in contents


def test_carries_the_licence(contents: set[str]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in contents)


def test_declares_the_command_and_the_built_in_plugins(wheel: Path, clean_copy: Path) -> None:
    project = tomllib.loads((clean_copy / "pyproject.toml").read_text())["project"]
    declared = project["entry-points"] | {"console_scripts": project["scripts"]}

    packaged = configparser.ConfigParser(delimiters="=")
    with ZipFile(wheel) as archive:
        (listing,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        packaged.read_string(archive.read(listing).decode())

    assert {group: dict(packaged[group]) for group in packaged.sections()} == declared


def test_every_entry_point_names_a_module_of_the_wheel(contents: set[str], clean_copy: Path) -> None:
    project = tomllib.loads((clean_copy / "pyproject.toml").read_text())["project"]
    modules = {
        value.partition(":")[0].replace(".", "/")
        for group in ({"scripts": project["scripts"]}, project["entry-points"])
        for points in group.values()
        for value in points.values()
    }

    missing = {name for name in modules if not {f"{name}.py", f"{name}/__init__.py"} & contents}

    assert sorted(missing) == []


def test_hooks_need_only_their_four_packages(light_environment, tmp_path: Path) -> None:
    light_environment.run("-W", "error", "-c", IMPORT_EVERY_MODULE, cwd=tmp_path)


def test_root_package_imports_where_the_optional_parts_are_missing(light_environment, tmp_path: Path) -> None:
    light_environment.run("-W", "error", "-c", "import explorank", cwd=tmp_path)
