"""Encoders adapted to behaviour: what users liked teaches a text model, or a head over it, what belongs together.

For building and training; serving needs the tokens of texts alone (`token_pairs`). Importing this package imports none
of what it needs; each name does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from explorank.retrieval.encoding.adapter import Adapter
    from explorank.retrieval.encoding.behaviour import Behaviour, recall_at
    from explorank.retrieval.encoding.cross_encoder import train_cross_encoder
    from explorank.retrieval.encoding.distillation import Lessons, teach
    from explorank.retrieval.encoding.fine_tuning import fine_tune_encoder
    from explorank.retrieval.encoding.fusion import concatenate
    from explorank.retrieval.encoding.gate import Gate, fuse
    from explorank.retrieval.encoding.knowledge_graph import knowledge_vectors
    from explorank.retrieval.encoding.options import FineTuning, Pretraining, TextRanking
    from explorank.retrieval.encoding.pretraining import pretrain_encoder
    from explorank.retrieval.encoding.text_ranker import TextRanker
    from explorank.retrieval.encoding.token_pairs import PairReader, PairTokenizer, TokenTable

__all__ = [
    "Adapter",
    "Behaviour",
    "FineTuning",
    "Gate",
    "Lessons",
    "PairReader",
    "PairTokenizer",
    "Pretraining",
    "TextRanker",
    "TextRanking",
    "TokenTable",
    "concatenate",
    "fine_tune_encoder",
    "fuse",
    "knowledge_vectors",
    "pretrain_encoder",
    "recall_at",
    "teach",
    "train_cross_encoder",
]

_LATE: Final = {
    "Adapter": "adapter",
    "Behaviour": "behaviour",
    "FineTuning": "options",
    "Gate": "gate",
    "Lessons": "distillation",
    "PairReader": "token_pairs",
    "PairTokenizer": "token_pairs",
    "Pretraining": "options",
    "TextRanker": "text_ranker",
    "TextRanking": "options",
    "TokenTable": "token_pairs",
    "concatenate": "fusion",
    "fine_tune_encoder": "fine_tuning",
    "fuse": "gate",
    "knowledge_vectors": "knowledge_graph",
    "pretrain_encoder": "pretraining",
    "recall_at": "behaviour",
    "teach": "distillation",
    "train_cross_encoder": "cross_encoder",
}
"""In which module these stand. torch and scipy cost seconds, which whoever serves need not pay."""


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
