"""Maps the request-path folders onto the one import name `explorank`.

This is the single thing `pyproject.toml` cannot state: a *computed* package list, so that a new
subpackage can never be missing from the wheel.
"""

from setuptools import find_packages, setup

ROOTS = {
    "explorank": "plugin",
    "explorank.rankers": "rankers",
    "explorank.retrieval": "retrieval",
    "explorank.hooks": "hooks",
}

setup(
    package_dir={**ROOTS, "explorank.feature_repo": "feature_repo"},
    packages=[
        *ROOTS,
        *(f"{name}.{sub}" for name, folder in ROOTS.items() for sub in find_packages(folder)),
        "explorank.feature_repo",
    ],
    include_package_data=False,  # else a leftover list of files from an earlier build has a say
    package_data={
        "explorank": ["py.typed", "**/*.yaml", "**/*.html.j2"],
        "explorank.feature_repo": ["*.yaml", "*.py", "*.md", "data/*.parquet", "data/*.json"],
    },
)
