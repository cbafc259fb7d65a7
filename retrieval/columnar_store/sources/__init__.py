"""What a backing store can tell beyond Feast's interface: whole pages of rows, and what has changed."""
