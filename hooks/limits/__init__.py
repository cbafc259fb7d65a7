"""Limits: what exploration may cost, and whether a request may explore at all."""

from explorank.hooks.limits.gate import Gate, refusal

__all__ = ["Gate", "refusal"]
