"""A columnar online store for Feast: any other online store, read from typed columns in memory.

Named in `feature_store.yaml` by its class path, `explorank.retrieval.columnar_store.ColumnarOnlineStore`.
Importing this package imports Feast.
"""

from explorank.retrieval.columnar_store.matrix import FeatureMatrix, Gathered, MatrixView
from explorank.retrieval.columnar_store.memory import KnownKeys, MemoryReport, ViewReport
from explorank.retrieval.columnar_store.store import ColumnarOnlineStore, ColumnarOnlineStoreConfig

__all__ = [
    "ColumnarOnlineStore",
    "ColumnarOnlineStoreConfig",
    "FeatureMatrix",
    "Gathered",
    "KnownKeys",
    "MatrixView",
    "MemoryReport",
    "ViewReport",
]
