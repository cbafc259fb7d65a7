"""Retrieval by what users took up together: models, neighbours, and what they tell a ranker.

Importing this package imports no torch; only `TwoTower.fit` needs it.
"""

from explorank.retrieval.collaborative.content_mapping import ContentMapping
from explorank.retrieval.collaborative.ease import EASE, EASEOptions
from explorank.retrieval.collaborative.implicit_als import ImplicitALS, ImplicitALSOptions
from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.collaborative.item_knn import ItemKNN, ItemKNNOptions
from explorank.retrieval.collaborative.model import CollaborativeModel
from explorank.retrieval.collaborative.neighbours import NeighbourTable

__all__ = [
    "EASE",
    "CollaborativeModel",
    "ContentMapping",
    "EASEOptions",
    "ImplicitALS",
    "ImplicitALSOptions",
    "Interactions",
    "ItemKNN",
    "ItemKNNOptions",
    "NeighbourTable",
]
