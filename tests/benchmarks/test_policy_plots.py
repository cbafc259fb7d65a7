"""The plots of the policies' pages: the same code draws the same file, and what makes it small changes no word."""

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def policy_plots(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(REPOSITORY)
    return importlib.import_module("benchmarks.policy_plots")


def test_a_plot_is_made_small_without_touching_its_labels(policy_plots: ModuleType) -> None:
    drawn = (
        '<!-- eta --><g>\n <path d="M 1.23456 -0.005 L 2 3.999"/>\n <text x="1.5">eta = 0.002</text>\n</g>'
    )
    small = policy_plots.compact(drawn)
    assert small == '<g>\n<path d="M 1.23 -0.01 L 2 4"/>\n<text x="1.5">eta = 0.002</text>\n</g>'


def test_the_script_draws_the_same_files_again(tmp_path: Path) -> None:
    """All of them, once; those of the closed forms have the labels of the committed ones."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.policy_plots", "--folder", tmp_path],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    committed = REPOSITORY / "docs" / "policies" / "plots"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        path.name for path in committed.iterdir()
    )
    for name in ("uniform", "epsilon_greedy", "softmax", "plackett_luce", "square_cb", "ucb1", "exp3"):
        new, old = (
            re.findall(r"<text[^>]*>([^<]*)<", (folder / f"{name}.svg").read_text(encoding="utf-8"))
            for folder in (tmp_path, committed)
        )
        assert new == old, f"docs/policies/plots/{name}.svg lags behind the code; run `make plots`"
