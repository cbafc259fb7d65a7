"""A causal transformer over what a user took up, in its order: the user is where the next item is looked for.

Training needs torch; serving is numpy, and this package imports no torch until `SASRec.fit`.
"""

from explorank.retrieval.collaborative.sasrec.model import SASRec
from explorank.retrieval.collaborative.sasrec.options import SASRecOptions

__all__ = ["SASRec", "SASRecOptions"]
