"""What is shown and what is learnt from it: the hook contract, exploration, guards, feedback, evaluation."""

from explorank.hooks.markers import hookimpl, hookspec

__all__ = ["hookimpl", "hookspec"]
