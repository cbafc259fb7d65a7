"""How much is lost while learning: Explorank's policies, other libraries and theory, on the same worlds."""
