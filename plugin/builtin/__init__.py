"""The built-in plugins: Feast, FAISS, ranker, guards and exploration, behind the same hooks as anyone's."""
