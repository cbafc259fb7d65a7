"""What the host serves: limits, load, plugins, tokens."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from explorank.settings.annotations import Accepts
from explorank.settings.sections.section import Milliseconds, Name, Positive, Section
from explorank.settings.validation import rule_broken


class LimitSettings(Section):
    """What a request may ask for at most; more is refused with a clear error."""

    slots: Positive = 1_000
    """Slots of one request."""
    candidates: Positive = 10_000
    """Candidates of one request, those that a host brings included."""
    body_bytes: Annotated[int, Field(ge=1_024)] = 1_048_576
    """Bytes of one HTTP request body."""


class LoadSettings(Section):
    """What the HTTP host does when more is asked than it can answer in time.

    It then spends less on each request: half of the candidates, the fewest, the ranker's cheaper way, no ranker, no
    exploration, and at last it refuses with 503. Each answer names what it went without. See
    [Operations](operations.md#overload).
    """

    latency_ms: Milliseconds | None = None
    """Within this time of its arrival a request for a slate is answered or refused. `null` spends the whole
    effort on all of them, however long they wait."""
    candidates: Positive = 100
    """The fewest candidates that are ranked."""


class PluginSettings(Section):
    """How one installed plugin takes part."""

    enabled: bool = True
    """`false` switches the plugin off without uninstalling it."""
    budget_ms: Milliseconds | None = None
    """How long each of the plugin's hooks may take, in milliseconds; later results are dropped. `null` is no
    limit."""
    options: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies defaults
    """What the plugin itself reads at start. Values from the environment arrive as secrets."""


def _fits_a_header(token: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]+", token.get_secret_value()):
        raise rule_broken(
            "is empty or holds spaces or characters beyond ASCII, so that no `Authorization` header could "
            "carry it. Set a long random token."
        )
    return token


Token = Annotated[SecretStr, AfterValidator(_fits_a_header), Accepts("secret text, best `{$env: NAME}`")]


class TokenSettings(Section):
    """The bearer tokens of the HTTP host.

    Without any, the host is open to all who reach it; with one, a scope without its own takes the admin
    token only.
    """

    rank: Token | None = None
    """For ranking and exploring."""
    reward: Token | None = None
    """For impressions and rewards."""
    admin: Token | None = None
    """For everything, metrics included."""


class ServerSettings(Section):
    """The HTTP host of `explorank serve`."""

    host: Name = "127.0.0.1"
    """The address to listen on. Beyond this machine (`0.0.0.0`), tokens are required: `admin`, which opens
    every scope, at least."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """The TCP port; 0 takes any free one."""
    tokens: TokenSettings = TokenSettings()
    """The bearer token of each scope."""
    workers: Positive = 1
    """Processes that answer, at most one for each core; they share the port and the folder."""
    threads: Positive = 1
    """How many requests a process works on at once. More than one helps where plugins wait for others or
    `feedback.durability` is `power`; else they only wait for each other."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        missing = [scope for scope in TokenSettings.model_fields if getattr(self.tokens, scope) is None]
        # The admin token alone keeps everyone else out.
        if "admin" in missing and not _is_loopback(self.host):
            raise rule_broken(
                f"`host: {self.host}` can be reached from other machines, so every scope needs a token; "
                f"missing: {', '.join(missing)}. Without it a scope would be open to anyone there, or to "
                f"none. Add `{missing[0]}: {{$env: EXPLORANK_{missing[0].upper()}_TOKEN}}` and the like, "
                "or listen on 127.0.0.1.",
                "tokens",
            )
        return self


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
