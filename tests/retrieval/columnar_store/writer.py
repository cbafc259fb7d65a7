"""Writes rows through the columnar store until it is killed; `python writer.py FOLDER`.

A line `done STEP KEY` says that a row is acknowledged.
"""

import importlib.util
import itertools
import os
import sys
from datetime import timedelta
from pathlib import Path

from feast.protos.feast.types.Value_pb2 import Value

spec = importlib.util.spec_from_file_location("repositories", Path(__file__).with_name("repositories.py"))
assert spec is not None
assert spec.loader is not None
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)

store = make.columnar(Path(sys.argv[1]))
view = store.get_feature_view("facts")
for step in itertools.count(2):
    key = "abcd"[step % 4]
    make.write(
        store,
        view,
        key,
        make.NOW + timedelta(seconds=step),
        price=make.number(float(step)),
        stock=Value(int64_val=step),
    )
    os.write(1, f"done {step} {key}\n".encode())
