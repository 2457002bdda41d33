"""JSON files that the project writes for itself: with a digest over what they say, read as the types that they hold.

A flipped bit leaves most JSON valid and its numbers wrong. The digest lies in the file under :data:`SEAL`; files of
earlier versions have none and are read by their types alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic

from diffpath_jax.io.adapters import adapter
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import parse_json, read_bytes, sha256_json, write_json

SEAL = "seal"
T = TypeVar("T")


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is to be stored: the content, as JSON gives it back, and its digest."""
    plain = json.loads(json.dumps(dict(content), allow_nan=False))
    return {**plain, SEAL: sha256_json(plain)}


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its digest, atomically."""
    write_json(path, sealed(content))


def opened(stored: Any, kind: type[T]) -> T:
    """Returns what :func:`sealed` was given, as a type; keys that the type does not know are passed over.

    Args:
        stored: a JSON value.
        kind: what it has to be: a dataclass, or ``dict``; numbers, texts and lists are not taken for each other.

    Raises:
        ValueError: the digest differs, or the value is something else.
    """
    content = _checked(stored) if isinstance(stored, dict) else stored
    try:
        # JSON has no tuples: only a reader of JSON takes lists for them and is strict about all else.
        return adapter(kind).validate_json(json.dumps(content), strict=True)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{place}: {first['msg']}" if place else first["msg"]) from None


def _checked(stored: dict[str, Any]) -> dict[str, Any]:
    """Returns what lies under a digest, or all that is stored, where there is none.

    Raises:
        ValueError: it differs from its digest, or only the name of the digest is damaged, which comes last.
    """
    last = SEAL if SEAL in stored else next(reversed(stored), None)
    content = {key: value for key, value in stored.items() if key != last}
    matches = last is not None and stored[last] == sha256_json(content)
    if last == SEAL and not matches:
        raise ValueError("its content does not match its digest")
    if last != SEAL and matches:
        raise ValueError(f"its digest is called {last!r}")
    return content if last == SEAL else stored


def read_sealed(path: Path, kind: type[T], *, what: str, fix: str) -> T:
    """Read a file of :func:`write_sealed`, or of an earlier version, which has no digest.

    Args:
        path: the file.
        kind: as for :func:`opened`.
        what: it is, for errors.
        fix: what helps.

    Raises:
        DiffpathError: there is no such file; or it is damaged: no JSON, of another shape, or another digest (exit code
            5).
    """
    text = read_bytes(path, what=what, fix=fix)
    try:
        return opened(parse_json(text), kind)
    except (ValueError, RecursionError) as error:
        raise DiffpathError(what, where=path, why=f"damaged: {error}", fix=fix, code=ExitCode.DAMAGED) from error
