"""Guards: who may stand in a slot, decided before the draw."""
