"""The README's code runs, and what it says of the repository is so."""

import re
import runpy
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_its_code_runs(work_through: Any, tmp_path: Path) -> None:
    # What the reader brings; from there on the page alone must do.
    for name, table in runpy.run_path(str(ROOT / "tests" / "build_installation.py"))["tables"]().items():
        table.to_parquet(tmp_path / f"{name}.parquet")
    reader = work_through("README.md")
    assert reader.ran.count("python") == 3
    assert {"yaml", "sh"} <= set(reader.ran)
    decision = reader.namespace["decision"]
    assert set(decision.items) <= {"sea-1", "crime-3", "space-7"}
    assert (tmp_path / "shop" / ".explorank" / "artefacts" / "ranker" / "current.json").exists()


def test_its_settings_are_ten_lines() -> None:
    settings = re.search(r"# explorank.yaml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert settings is not None
    assert len(settings[1].splitlines()) == 10


def test_its_targets_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README.read_text(encoding="utf-8"), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
