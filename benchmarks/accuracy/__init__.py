"""Accuracy of retrieval and ranking on held-out interactions."""
