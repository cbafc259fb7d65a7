"""What Feast's own operations say when they fail."""

import sys
from pathlib import Path

import pytest

from explorank.retrieval.errors import FeatureRepositoryError
from explorank.retrieval.features.feast_session import quiet


def fail_in_colours() -> None:
    sys.stderr.write("\x1b[1m5\x1b[0m views\n")
    raise ConnectionError("refused.")


def test_what_feast_said_is_told_without_its_colours(tmp_path: Path) -> None:
    told = r"applying the repository .*: ConnectionError: refused\. It said: 5 views\. Run `feast apply`"
    with pytest.raises(FeatureRepositoryError, match=told), quiet("applying", tmp_path):
        fail_in_colours()
