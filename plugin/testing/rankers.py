"""The suite that a ranker inherits."""

from __future__ import annotations

from explorank.testing.ranker_explaining import RankerExplainingTests
from explorank.testing.ranker_scoring import RankerScoringTests
from explorank.testing.ranker_storage import RankerStorageTests
from explorank.testing.ranker_training import RankerTrainingTests


class RankerTests(RankerScoringTests, RankerTrainingTests, RankerStorageTests, RankerExplainingTests):
    """Holds a ranker to the whole contract.

        class TestMyRanker(RankerTests):
            ranker_class = MyRanker
            options = MyOptions(rounds=20)
            invalid_options = [{"rounds": 0}]

    Only `ranker_class` is needed. `make_data` may give the suite other data, and the class attributes of `RankerCases`
    say what tolerances the ranker asks for. Each test's docstring says what it demands and why.
    """
