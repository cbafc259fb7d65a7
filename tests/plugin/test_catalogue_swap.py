"""A catalogue that is published anew takes over in running processes, whole and soon."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from explorank.artefacts import ArtefactStore
from explorank.retrieval import Catalogue
from explorank.settings import load_settings

SCRIPT = Path(__file__).with_name("rank_until_told.py")
REFRESHES_EVERY_S = 1.0
PATIENCE_S = 30.0
"""What a busy machine may add to loading a small catalogue."""


def catalogue(generation: str, count: int = 300) -> Catalogue:
    vectors = np.random.default_rng(len(generation)).standard_normal((count + 1, 16))
    return Catalogue.build(["anchor", *(f"{generation}-{number}" for number in range(count))], vectors)


@pytest.mark.slow
def test_every_process_takes_a_new_catalogue_up_soon(tmp_path: Path) -> None:
    settings = {
        "version": 1,
        "ranker": None,
        "retrieval": {"retrievers": [{"use": "similar_to_history", "k": 20}]},
        "exploration": {"mode": "off", "policy": {"use": "uniform"}},
    }
    file = tmp_path / "explorank.yaml"
    file.write_text(yaml.safe_dump(settings))
    store = ArtefactStore(load_settings(file).folder_path / "artefacts")
    store.publish("catalogue", catalogue("old").save)
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline().split()[:2] == ["old", "20"]
        store.publish("catalogue", catalogue("newer").save)
        published = time.time()
        old = store.versions("catalogue")[0]
        for process in processes:
            assert process.stdout is not None
            generation, count, seen = process.stdout.readline().split()
            assert (generation, count) == ("newer", "20")
            assert float(seen) - published <= REFRESHES_EVERY_S + PATIENCE_S
        # The old version's files may go, although processes mapped them.
        shutil.rmtree(store.pointer("catalogue").parent / old)
    finally:
        rest = [process.communicate()[0] for process in processes]
    assert rest == ["", ""]
    assert [process.returncode for process in processes] == [0, 0]
