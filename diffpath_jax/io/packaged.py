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


# Configs of studies are called so; the others are of runs.
STUDY_PREFIX = "study_"


def config_names(*, studies: bool) -> list[str]:
    """Returns the names of the configs of studies, or of runs, that come with the package."""
    return [name for name in _config_names() if name.startswith(STUDY_PREFIX) == studies]


def _config_names() -> list[str]:
    return sorted(path.stem for path in folder("configs").glob("*.py") if path.stem not in {"common", "__init__"})


def config_path(text: str) -> str:
    """Returns ``FILE.py[:VARIANT]`` for ``diffpath:NAME[:VARIANT]``; any other text is given back as it is.

    Raises:
        DiffpathError: no config of this name comes with the package.
    """
    if not text.startswith(PREFIX):
        return text
    name, colon, variant = text.removeprefix(PREFIX).partition(":")
    if name not in _config_names():
        fix = f"use one of {', '.join(_config_names())}"
        raise DiffpathError(f"config {name!r}", where=text, why="no such config comes with diffpath", fix=fix)
    return f"{folder('configs') / name}.py{colon}{variant}"
