"""Retrieval by what users took up together: models, neighbours, and what they tell a ranker.

Importing this package imports no torch; only `TwoTower.fit` and `SASRec.fit` need it.
"""

from explorank.retrieval.collaborative.content_mapping import ContentMapping
from explorank.retrieval.collaborative.ease import EASE, EASEOptions
from explorank.retrieval.collaborative.embedding_model import EmbeddingModel, products_with_user
from explorank.retrieval.collaborative.embedding_space import EMBEDDING_MODELS, EmbeddingSpace
from explorank.retrieval.collaborative.first_stage import (
    FirstStage,
    FirstStageOptions,
    RankingRows,
    training_rows,
)
from explorank.retrieval.collaborative.folds import Fold, cuts_in_time, folds_by_user
from explorank.retrieval.collaborative.implicit_als import ImplicitALS, ImplicitALSOptions
from explorank.retrieval.collaborative.interactions import Interactions
from explorank.retrieval.collaborative.item_knn import ItemKNN, ItemKNNOptions
from explorank.retrieval.collaborative.model import CollaborativeModel
from explorank.retrieval.collaborative.neighbours import NeighbourTable
from explorank.retrieval.collaborative.sasrec import SASRec, SASRecOptions
from explorank.retrieval.collaborative.side_information import SideInformation
from explorank.retrieval.collaborative.two_tower import TwoTower, TwoTowerOptions

__all__ = [
    "EASE",
    "EMBEDDING_MODELS",
    "CollaborativeModel",
    "ContentMapping",
    "EASEOptions",
    "EmbeddingModel",
    "EmbeddingSpace",
    "FirstStage",
    "FirstStageOptions",
    "Fold",
    "ImplicitALS",
    "ImplicitALSOptions",
    "Interactions",
    "ItemKNN",
    "ItemKNNOptions",
    "NeighbourTable",
    "RankingRows",
    "SASRec",
    "SASRecOptions",
    "SideInformation",
    "TwoTower",
    "TwoTowerOptions",
    "cuts_in_time",
    "folds_by_user",
    "products_with_user",
    "training_rows",
]
