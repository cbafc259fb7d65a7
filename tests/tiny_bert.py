"""Writes a BERT of two small layers with random weights, so that training takes seconds and nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def write_model(folder: Path, words: Iterable[str], *, seed: int, longest: int = 32) -> Path:
    """Write a sentence-transformers model that knows `words` and reads `longest` tokens; return its folder."""
    import torch
    from sentence_transformers import SentenceTransformer

    try:
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    except ImportError:  # before 6
        from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(words))]
    body = folder / "body"
    body.mkdir(parents=True)
    (body / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(str(body / "vocab.txt")).save_pretrained(body)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=longest,
    )
    BertModel(config).save_pretrained(body)
    transformer = Transformer(str(body))
    model = SentenceTransformer(modules=[transformer, Pooling(32), Normalize()], device="cpu")
    model.save(str(folder / "model"))
    return folder / "model"
