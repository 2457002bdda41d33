"""Modules that add something by being imported: those of a folder, and those that other packages name."""

import importlib
import importlib.metadata
import pkgutil
from pathlib import Path


def import_beside(module: str, file: str, *, entry_points: str) -> None:
    """Import all modules that lie beside one, and those that installed packages name for it.

    Args:
        module: its name, ``__name__``.
        file: its file, ``__file__``.
        entry_points: the group of entry points that name modules of other packages.
    """
    package = module.rpartition(".")[0]
    for sibling in pkgutil.iter_modules([str(Path(file).parent)]):
        importlib.import_module(f"{package}.{sibling.name}")
    for entry in importlib.metadata.entry_points(group=entry_points):
        entry.load()
