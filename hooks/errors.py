"""Everything `explorank.hooks` raises on purpose.

    ExplorationError
    ├── InvalidBatch            (ValueError)   a batch whose shapes or values break the contract
    ├── InvalidPolicy           (ValueError)   a policy, guard or their parameters that cannot work
    ├── InvalidPlugin           (ValueError)   a plugin, its component or its limits that break the contract
    ├── PluginLate              (TimeoutError) a hook implementation that overran its time budget
    ├── PluginSkipped           (RuntimeError) a hook implementation that was not called, to limit the damage
    ├── UnknownComponent        (LookupError)  a name that no installed plugin registers
    ├── CorruptState            (ValueError)   saved arrays whose checksum or layout is wrong
    ├── UnknownDecision         (LookupError)  feedback for a decision that no log holds
    ├── InvalidFeedback         (ValueError)   feedback that contradicts its decision or the settings
    └── LogUnavailable          (OSError)      a decision or reward that could not be made durable

Each message names the thing, the rule it broke, what follows from that, and the way out.
"""


class ExplorationError(Exception):
    """The base of every deliberate error of this package."""


class InvalidBatch(ExplorationError, ValueError):
    """A batch whose shapes or values break the contract."""


class InvalidPolicy(ExplorationError, ValueError):
    """A policy or guard that cannot work as configured."""


class InvalidPlugin(ExplorationError, ValueError):
    """A plugin, a component it registers or the limits set for it that break the contract."""


class PluginLate(ExplorationError, TimeoutError):
    """A hook implementation that overran its time budget."""


class PluginSkipped(ExplorationError, RuntimeError):
    """A hook implementation that was not called because its plugin keeps failing."""


class UnknownComponent(ExplorationError, LookupError):
    """A component name that no installed plugin registers."""


class CorruptState(ExplorationError, ValueError):
    """Saved arrays whose checksum or layout is wrong."""


class UnknownDecision(ExplorationError, LookupError):
    """Feedback for a decision that no log holds."""


class InvalidFeedback(ExplorationError, ValueError):
    """Feedback that contradicts its decision or the settings."""


class LogUnavailable(ExplorationError, OSError):
    """A decision or reward that could not be made durable."""
