"""Evaluation: what a policy would have done, from the log alone."""
