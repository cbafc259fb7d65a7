"""Rankers that are neural networks: trained by torch, served by ONNX Runtime.

The modules that train (`networks`, `training`, …) import torch; those that serve (`ranker`, `dcn_ranker`, …) import
them late.
"""
