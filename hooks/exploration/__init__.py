"""Exploration: policies, and the slates that they draw slot by slot."""
