"""A tiny encoder, items of four kinds that it can read of, and users who like two kinds each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from explorank.retrieval import Encoder
from explorank.retrieval.encoding import Behaviour

KINDS = ["sea", "crime", "bread", "space"]
WORDS = {
    "sea": ["harbour", "storm", "tide", "diver"],
    "crime": ["murder", "alibi", "poison", "witness"],
    "bread": ["oven", "rye", "yeast", "flour"],
    "space": ["orbit", "comet", "moon", "launch"],
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def write_model(write_tiny_bert: Callable[..., Path], folder: Path, seed: int) -> Path:
    words = {word for group in WORDS.values() for word in group} | {"a", "story", "of", "and", "."}
    return write_tiny_bert(folder, words, seed=seed)


@pytest.fixture(scope="session")
def model(write_tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(write_tiny_bert, tmp_path_factory.mktemp("tiny"), seed=1)


@pytest.fixture(scope="session")
def other_model(write_tiny_bert: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(write_tiny_bert, tmp_path_factory.mktemp("other"), seed=2)


@pytest.fixture
def encoder(model: Path) -> Encoder:
    return Encoder(model, device="cpu")


@pytest.fixture(scope="session")
def texts() -> dict[str, str]:
    """40 items of four kinds; those of a kind share words."""
    random = np.random.default_rng(3)
    return {
        f"{kind}-{number}": "a story of " + " and ".join(random.choice(WORDS[kind], 2, replace=False))
        for kind in KINDS
        for number in range(10)
    }


@pytest.fixture(scope="session")
def histories() -> list[list[str]]:
    """60 users who like ten items of one kind and of the kind two further: sea with bread, crime with space."""
    random = np.random.default_rng(4)
    found = []
    for user in range(60):
        kinds = (KINDS[user % 4], KINDS[(user + 2) % 4])
        names = [f"{kind}-{number}" for kind in kinds for number in range(10)]
        found.append(random.choice(names, 10, replace=False).tolist())
    return found


@pytest.fixture(scope="session")
def behaviour(histories: list[list[str]], texts: dict[str, str]) -> Behaviour:
    return Behaviour.from_histories([items[:8] for items in histories], texts, history=4, window=(1.0, 2.0))


@pytest.fixture(scope="session")
def valid(histories: list[list[str]], texts: dict[str, str]) -> Behaviour:
    return Behaviour.from_histories(histories, texts, history=8, from_event=[8] * len(histories))
