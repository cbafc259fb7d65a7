"""From bytes on the wire to a checked message, and what is wrong with it where it isn't one."""

from __future__ import annotations

import asyncio
import difflib
import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from explorank.host.errors import JsonScalar, Problem, ProblemKind, Violation

M = TypeVar("M", bound=BaseModel)

_MAX_ERRORS: Final = 20
_MAX_TEXT: Final = 100
_JSON_TYPE: Final = re.compile(r"application/(?:[\w.+-]+\+)?json", re.ASCII)
_CHARSET: Final = re.compile(r'charset="?(?:utf-8|us-ascii)"?', re.ASCII)
_NOT_A_NUMBER: Final = re.compile(r"-?(?:NaN|Infinity)")


async def read_body(request: Request, *, limit: int, timeout_s: float) -> bytes:
    """Return the body, of which at most `limit` bytes are ever held.

    Raises `Problem`: 415 for anything but plain JSON, 413 beyond the limit, 408 where it is too slow; and
    `ClientDisconnect` where the client goes away.
    """
    _require_json(request)
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                if len(body) + len(chunk) > limit:
                    raise _too_large(limit)
                body += chunk
    except TimeoutError:
        raise Problem(
            ProblemKind.SLOW_BODY,
            f"The body was incomplete after {timeout_s:g} s; the connection is closed.",
            headers={"Connection": "close"},
        ) from None
    return bytes(body)


def _require_json(request: Request) -> None:
    media_type, *parameters = (part.strip() for part in request.headers.get("content-type", "").split(";"))
    accepted = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if not _JSON_TYPE.fullmatch(media_type.lower()):
        given = _shorten(media_type) or "none"
        raise Problem(
            ProblemKind.UNSUPPORTED_MEDIA_TYPE,
            f"The content type is {given}; send `Content-Type: application/json`.",
            headers=accepted,
        )
    for parameter in parameters:
        if parameter.lower().startswith("charset=") and not _CHARSET.fullmatch(parameter.lower()):
            raise Problem(
                ProblemKind.UNSUPPORTED_MEDIA_TYPE,
                f"The body is declared as {_shorten(parameter)}; JSON is UTF-8.",
                headers=accepted,
            )
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(
            ProblemKind.UNSUPPORTED_MEDIA_TYPE,
            "Compressed bodies are not read, as their size is unknown until they are; send it plain.",
            headers=accepted,
        )


def _too_large(limit: int) -> Problem:
    return Problem(
        ProblemKind.BODY_TOO_LARGE,
        f"The body has more than {limit} bytes. Send less at once, or raise `limits.body_bytes`.",
        headers={"Connection": "close"},
    )


def parse_json(body: bytes) -> Any:
    """Return what `body` says; of equal keys in an object the last counts.

    Raises `Problem` of 400, naming the place, for what is not JSON in UTF-8.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        word = _NOT_A_NUMBER.match(error.doc, max(0, error.pos - 1)) or _NOT_A_NUMBER.match(
            error.doc, error.pos
        )
        rule = f"JSON has no {word[0]}; leave the field out or send null" if word else _shorten(error.msg)
        where = f"line {error.lineno}, column {error.colno}"
        raise Problem(
            ProblemKind.MALFORMED_JSON,
            f"The body cannot be read as JSON at {where}: {rule}.",
            [Violation(where, rule, word[0] if word else None)],
        ) from None


def check(model: type[M], value: Any, *, within: Sequence[str | int] = ()) -> M:
    """Return `value`, which is what `parse_json` returned or the part of it at `within`, as a message.

    Raises `Problem` of 422 with one entry per broken rule, at most 20.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=True)
        violations = [
            Violation(
                json_path((*within, *entry["loc"])),
                _rule(entry["type"], entry["msg"], entry["loc"], list(model.model_fields)),
                describe(entry["input"]) if entry["type"] != "missing" else None,
            )
            for entry in found[:_MAX_ERRORS]
        ]
        more = f" (the first {_MAX_ERRORS} are listed)" if len(found) > _MAX_ERRORS else ""
        raise Problem(
            ProblemKind.INVALID_REQUEST,
            f"{violations[0].where}: {violations[0].rule}."
            if len(found) == 1
            else f"{len(found)} rules are broken{more}; see `errors`.",
            violations,
        ) from None


def _rule(kind: str, message: str, location: tuple[str | int, ...], known: Sequence[str]) -> str:
    if kind == "missing":
        return "this field is required"
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1])[:_MAX_TEXT], known, n=1)
        return f"unknown field; the nearest known is `{near[0]}`" if near else "unknown field"
    if kind == "model_type":
        return "input should be a JSON object"
    if kind == "string_pattern_mismatch":
        return "input should hold no control characters"
    return message[:1].lower() + message[1:]


def json_path(location: Sequence[str | int]) -> str:
    """Return a location as a JSON path, such as `$.rewards[2].value`."""
    path = "$"
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.isidentifier() and len(part) <= _MAX_TEXT:
            path += f".{part}"
        else:
            path += f"[{orjson.dumps(_shorten(part)).decode()}]"
    return path


def describe(value: object) -> JsonScalar:
    """Return a JSON value as a scalar that is fit for an error message."""
    if isinstance(value, str):
        return _shorten(value)
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if value is None or isinstance(value, bool | int | float):
        return value
    return type(value).__name__


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"
