"""The two markers of the contract: `hookspec` declares a hook, `hookimpl` implements one."""

from typing import Final

import pluggy

PROJECT_NAME: Final = "explorank"

hookspec: Final = pluggy.HookspecMarker(PROJECT_NAME)
hookimpl: Final = pluggy.HookimplMarker(PROJECT_NAME)
