"""A Feast repository, and the data of the package: `explorank init` copies it. Feast skips this file."""
