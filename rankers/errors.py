"""Everything `explorank.rankers` raises on purpose.

    RankerError
    ├── InvalidTraining   (ValueError)  data or options that no useful ranker can be trained from
    ├── FeatureMismatch   (ValueError)  features that are not the ones a ranker was trained on
    ├── CorruptRanker     (ValueError)  a saved file that is damaged, missing or foreign
    ├── UnsupportedModel  (ValueError)  a model that no compiled forest can score exactly
    ├── InvalidProbabilities (ValueError) probabilities or labels of which no calibration can be told
    └── MissingDependency (ImportError) a package of an extra that is not installed

Each message names the thing, the rule it broke, what follows from that, and the way out.
"""


class RankerError(Exception):
    """The base of every deliberate error of this package."""


class InvalidTraining(RankerError, ValueError):
    """Data or options that no useful ranker can be trained from."""


class FeatureMismatch(RankerError, ValueError):
    """Features that are not the ones a ranker was trained on."""


class CorruptRanker(RankerError, ValueError):
    """A saved file that is damaged, missing or foreign."""


class UnsupportedModel(RankerError, ValueError):
    """A model that no compiled forest can score exactly."""


class InvalidProbabilities(RankerError, ValueError):
    """Probabilities or labels of which no calibration can be told."""


class MissingDependency(RankerError, ImportError):
    """A package of an extra that is not installed."""
