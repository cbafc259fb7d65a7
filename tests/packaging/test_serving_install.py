"""A serving install holds what answering needs and nothing of what building and training need."""

import pytest

pytestmark = pytest.mark.slow  # the first run installs an environment


@pytest.mark.parametrize("module", ["torch", "sentence_transformers", "matplotlib"])
def test_training_packages_are_absent(serving_environment, tmp_path, module) -> None:
    find = f"import importlib.util; print(importlib.util.find_spec({module!r}))"

    assert serving_environment.run("-c", find, cwd=tmp_path) == "None\n"


@pytest.mark.parametrize(
    "module", ["explorank", "explorank.hooks.exploration", "explorank.retrieval", "explorank.rankers"]
)
def test_imports(serving_environment, tmp_path, module) -> None:
    serving_environment.run("-W", "error", "-c", f"import {module}", cwd=tmp_path)


def test_requirements_fit_together(serving_environment, tmp_path) -> None:
    serving_environment.run("-m", "pip", "check", cwd=tmp_path)
