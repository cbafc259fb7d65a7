"""Measurements of Explorank, each beside what it is measured against; run from the repository's root."""
