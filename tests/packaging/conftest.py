"""The wheel, built from what git would hand on, and environments to install it in.

Each environment is used by the tests of one file, which `make test` keeps on one worker.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).parents[2]
CONSTRAINTS = REPOSITORY / "constraints.txt"
ENVIRONMENTS = REPOSITORY / "build" / "environments"
LIGHT_REQUIREMENTS = ("numpy", "numba", "scipy", "pluggy", "orjson")


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, with nothing of this one in it."""

    root: Path

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    @property
    def explorank(self) -> Path:
        """The installed command."""
        return self.root / "bin" / "explorank"

    @property
    def variables(self) -> dict[str, str]:
        """This process's variables, less those that would let its modules in."""
        return {
            name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}
        }

    def run(self, *arguments: str | Path, cwd: Path) -> str:
        """Run this environment's Python in `cwd` and return what it printed; a failure shows all it said."""
        process = subprocess.run(
            [self.python, *arguments],
            cwd=cwd,
            env=self.variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, f"{process.stdout}\n{process.stderr}"
        return process.stdout

    def install(self, *requirements: str | Path) -> None:
        self.run(
            "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements, cwd=self.root
        )


@pytest.fixture(scope="session")
def clean_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a fresh clone would hold: tracked files and those not ignored, without build leftovers."""
    copy = tmp_path_factory.mktemp("clean-copy")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listing.stdout.split("\0")):
        source, target = REPOSITORY / name, copy / name
        if source.is_file():  # a file removed from the work tree is listed until the removal is committed
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return copy


@pytest.fixture(scope="session")
def wheel(clean_copy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    Environment(Path(sys.prefix)).run(
        *("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, clean_copy), cwd=folder
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def light_environment(wheel: Path) -> Environment:
    """The wheel and the four packages that the hooks are allowed to need."""
    environment = environment_with("light", LIGHT_REQUIREMENTS)
    environment.install("--no-deps", "--force-reinstall", wheel)
    return environment


@pytest.fixture(scope="session")
def serving_environment(wheel: Path) -> Environment:
    """A serving install: the wheel with the extra `cpu` and without `train`."""
    environment = environment_with("serving", requirements(wheel, extra="cpu"))
    environment.install("--no-deps", "--force-reinstall", wheel)
    return environment


def environment_with(name: str, wanted: Sequence[str]) -> Environment:
    """An environment holding `wanted` at the pinned versions, kept between runs for as long as those stay."""
    key = hashlib.sha256("\n".join([sys.version, CONSTRAINTS.read_text(), *wanted]).encode()).hexdigest()[:16]
    root = ENVIRONMENTS / f"{name}-{key}"
    environment, ready = Environment(root), root / ".ready"
    if not ready.exists():
        for outdated in ENVIRONMENTS.glob(f"{name}-*"):
            shutil.rmtree(outdated)
        subprocess.run([sys.executable, "-m", "venv", root], check=True)
        environment.install("--constraint", CONSTRAINTS, *wanted)
        ready.touch()
    return environment


def requirements(wheel: Path, extra: str) -> list[str]:
    """What the wheel declares to need, with those of one extra among its optional parts."""
    with ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        declared = [
            line.removeprefix("Requires-Dist: ")
            for line in archive.read(metadata).decode().splitlines()
            if line.startswith("Requires-Dist: ")
        ]
    of_extra = f'; extra == "{extra}"'
    return [
        line.removesuffix(of_extra)
        for line in declared
        if "; extra ==" not in line or line.endswith(of_extra)
    ]
