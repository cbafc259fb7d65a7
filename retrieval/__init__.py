"""Who could be shown, and what is known of them: embeddings, nearest neighbours, the catalogue, features.

Importing this package imports neither FAISS, torch, sentence-transformers nor Feast; each is imported by the
first call that needs it.
"""

from explorank.retrieval._gpu import GpuOptions
from explorank.retrieval._index_kinds import Effort
from explorank.retrieval.catalogue import Catalogue
from explorank.retrieval.collaborative.two_tower import TwoTower
from explorank.retrieval.encoder import Encoder
from explorank.retrieval.errors import (
    AdapterMismatch,
    CorruptArtefact,
    EmbeddingsUnknown,
    EncoderUnavailable,
    FaissUnavailable,
    FeatureRepositoryError,
    InvalidOption,
    InvalidTable,
    InvalidVectors,
    NeighboursUnknown,
    RecentPopularityUnknown,
    RetrievalError,
)
from explorank.retrieval.faiss_index import FaissIndex
from explorank.retrieval.index_tuning import TradeOff, TunedIndex, Tuning, tune_index
from explorank.retrieval.interest import UserVectors, interest_vector
from explorank.retrieval.retrievers import (
    FoundRows,
    LearnedEmbeddings,
    NewItems,
    Popular,
    RetrievalQuery,
    Retriever,
    RowRetriever,
    SimilarByUse,
    SimilarToHistory,
    Trending,
)
from explorank.retrieval.uniting import United, unite
from explorank.retrieval.user_features import UserFeatures

__all__ = [
    "AdapterMismatch",
    "Catalogue",
    "CorruptArtefact",
    "Effort",
    "EmbeddingsUnknown",
    "Encoder",
    "EncoderUnavailable",
    "FaissIndex",
    "FaissUnavailable",
    "FeatureRepositoryError",
    "FoundRows",
    "GpuOptions",
    "InvalidOption",
    "InvalidTable",
    "InvalidVectors",
    "LearnedEmbeddings",
    "NeighboursUnknown",
    "NewItems",
    "Popular",
    "RecentPopularityUnknown",
    "RetrievalError",
    "RetrievalQuery",
    "Retriever",
    "RowRetriever",
    "SimilarByUse",
    "SimilarToHistory",
    "TradeOff",
    "Trending",
    "TunedIndex",
    "Tuning",
    "TwoTower",
    "United",
    "UserFeatures",
    "UserVectors",
    "interest_vector",
    "tune_index",
    "unite",
]
