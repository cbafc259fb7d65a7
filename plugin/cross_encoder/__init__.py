"""A ranker that reads the texts of a user's history and of a candidate together."""

from explorank.cross_encoder.options import CrossEncoderOptions
from explorank.cross_encoder.ranker import CrossEncoderRanker

__all__ = ["CrossEncoderOptions", "CrossEncoderRanker"]
