"""Everything `explorank.retrieval` raises on purpose.

    RetrievalError
    ├── FaissUnavailable     (ImportError)   no FAISS installed, two of them, or no GPU where one is asked for
    ├── EncoderUnavailable   (RuntimeError)  a model or library for encoding texts that is not there
    ├── AdapterMismatch      (ValueError)    an adapter of another model, or of other vectors beside texts
    ├── InvalidOption        (ValueError)    an option outside its range
    ├── InvalidVectors       (ValueError)    vectors, ids or texts that an index or encoder cannot take
    ├── CorruptArtefact      (ValueError)    a saved file that is damaged, missing or foreign
    ├── NeighboursUnknown    (LookupError)   a catalogue that does not know which items have the same users
    ├── EmbeddingsUnknown    (LookupError)   a catalogue in which no embeddings were learnt from interactions
    ├── InvalidTable         (ValueError)    interactions, items, users or entities out of their stated shape
    └── FeatureRepositoryError (RuntimeError)  a Feast repository that cannot be written, applied or read

Each message names the thing, the rule it broke, what follows from that, and the way out.
"""


class RetrievalError(Exception):
    """The base of every deliberate error of this package."""


class FaissUnavailable(RetrievalError, ImportError):
    """No FAISS is installed, more than one is, or it has no GPU where one is asked for."""


class EncoderUnavailable(RetrievalError, RuntimeError):
    """A model, or the library that runs it, is not there."""


class AdapterMismatch(RetrievalError, ValueError):
    """An adapter that was trained on another model, or whose gate was trained with other vectors beside texts."""


class InvalidOption(RetrievalError, ValueError):
    """An option outside its range."""


class InvalidVectors(RetrievalError, ValueError):
    """Vectors, ids or texts that an index, catalogue or encoder cannot take."""


class CorruptArtefact(RetrievalError, ValueError):
    """A saved file that is damaged, missing or foreign."""


class NeighboursUnknown(RetrievalError, LookupError):
    """A catalogue that does not know which items have the same users."""


class RecentPopularityUnknown(RetrievalError, LookupError):
    """A catalogue that does not know what is popular lately."""


class EmbeddingsUnknown(RetrievalError, LookupError):
    """A catalogue in which no embeddings were learnt from interactions."""


class InvalidTable(RetrievalError, ValueError):
    """A table of interactions, items, users or entities that breaks its stated shape."""


class FeatureRepositoryError(RetrievalError, RuntimeError):
    """A Feast repository that cannot be written, applied or read as asked."""
