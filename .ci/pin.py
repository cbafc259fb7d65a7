"""Turns pip's resolution report (read from standard input) into `constraints.txt` (standard output).

The release number alone is kept of a version such as `2.13.0+cpu`: which build of it is installed is
the business of whoever installs.
"""

import json
import sys

HEADER = """\
# What `make` and the continuous checks install: every package, at the version it was tested with
# on Python 3.11. `pyproject.toml` holds the ranges that Explorank works with. Generated: to take up newer
# releases run `make constraints`; to take up another torch, `make constraints TORCH=<version>`.
"""

report = json.load(sys.stdin)
pins = {
    package["metadata"]["name"].lower().replace("_", "-"): package["metadata"]["version"].split("+")[0]
    for package in report["install"]
    if "dir_info" not in package["download_info"]
}
sys.stdout.write(HEADER)
sys.stdout.writelines(f"{name}=={version}\n" for name, version in sorted(pins.items()))
