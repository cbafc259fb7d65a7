"""Two towers, one of users and one of items, whose outputs are near where one takes up the other.

Training needs torch; serving is numpy, and this package imports no torch until `TwoTower.fit`.
"""

from explorank.retrieval.collaborative.two_tower.model import TwoTower
from explorank.retrieval.collaborative.two_tower.options import TwoTowerOptions

__all__ = ["TwoTower", "TwoTowerOptions"]
