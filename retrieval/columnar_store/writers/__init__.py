"""How rows go to a backing store, for each kind of store."""
