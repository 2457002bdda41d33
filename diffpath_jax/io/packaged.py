"""Files that come with the package: its configs and what the demo starts from.

In a clone they lie at the top of the repository, in an installed wheel inside the package (``setup.py``).
"""

from pathlib import Path

from diffpath_jax.io.errors import DiffpathError

PREFIX = "diffpath:"
_PACKAGE = Path(__file__).resolve().parents[1]


def folder(name: str) -> Path:
    """Returns the folder ``configs`` or ``demo``, wherever this installation has it.

    Raises:
        DiffpathError: the installation lacks it.
    """
    places = (_PACKAGE / name, _PACKAGE.parent / name)
    for place in places:
        if place.is_dir():
            return place
    raise DiffpathError(f"folder {name!r}", where=_PACKAGE, why="missing", fix="install diffpath again")


def config_names() -> list[str]:
    """Returns the names of the configs that come with the package."""
    return sorted(path.stem for path in folder("configs").glob("*.py") if path.stem not in {"common", "__init__"})


def config_path(text: str) -> str:
    """Returns ``FILE.py[:VARIANT]`` for ``diffpath:NAME[:VARIANT]``; any other text is given back as it is.

    Raises:
        DiffpathError: no config of this name comes with the package.
    """
    if not text.startswith(PREFIX):
        return text
    name, colon, variant = text.removeprefix(PREFIX).partition(":")
    if name not in config_names():
        fix = f"use one of {', '.join(config_names())}"
        raise DiffpathError(f"config {name!r}", where=text, why="no such config comes with diffpath", fix=fix)
    return f"{folder('configs') / name}.py{colon}{variant}"
