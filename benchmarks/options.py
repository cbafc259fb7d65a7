"""What benchmarks are asked on the command line, and where they write what they found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def parser_of(module: str, doc: str | None, *, quick: str) -> argparse.ArgumentParser:
    """Return a parser that knows `--quick`, explained by `quick`, and `--json`; `doc` is the module's."""
    parser = argparse.ArgumentParser(prog=module, description=(doc or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the results to PATH")
    return parser


def write_results(
    options: argparse.Namespace, facts: Mapping[str, Any], results: Sequence[DataclassInstance]
) -> None:
    """Write the environment and the results where `--json` asks for it."""
    if options.json is not None:
        written = {"environment": facts, "quick": options.quick, "results": [asdict(one) for one in results]}
        options.json.write_text(json.dumps(written, indent=1), encoding="utf-8")
