"""Which annotation classes are used, under which names, and which are left out on purpose."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import read_json

OVERLAPS = ("reject", "priority")
# Class names become file and folder names.
_CLASS_NAME = re.compile(r"[\w-]{1,64}")


@dataclass(frozen=True)
class ClassMap:
    """Which annotation classes are used, under which name, and which are left out on purpose.

    Attributes:
        classes: annotation class -> class of the data set.
        ignore: annotation classes that are known and not used.
        overlap: where regions of several classes overlap, the area is excluded (``reject``), or goes to the class that
            the map names first (``priority``).
    """

    classes: Mapping[str, str]
    ignore: frozenset[str]
    overlap: str = OVERLAPS[0]

    @property
    def names(self) -> tuple[str, ...]:
        """Classes of the data set, in the order the map first names them; a label is an index into these."""
        return tuple(dict.fromkeys(self.classes.values()))

    @property
    def priority(self) -> tuple[str, ...]:
        """Classes that overlaps go to, first come first served; none where overlaps are excluded."""
        return self.names if self.overlap == "priority" else ()


def read_class_map(path: Path) -> ClassMap:
    """Read ``{"classes": {"Annotation class": "data set class"}, "ignore": ["Annotation class"]}``.

    ``"overlap": "priority"`` may be added.

    Raises:
        DiffpathError: the file is missing or says something else.
    """
    example = 'write {"classes": {"Tumour": "tumour"}, "ignore": ["Pen"]}'
    content = read_json(path, what="class map", fix=example)
    classes: Any = content.get("classes") if isinstance(content, dict) else None
    ignore: Any = content.get("ignore", []) if isinstance(content, dict) else None
    valid = (
        isinstance(classes, dict)
        and classes
        and isinstance(ignore, list)
        and set(content) <= {"classes", "ignore", "overlap"}
        and all(isinstance(name, str) for name in (*classes.values(), *ignore))
    )
    if not valid:
        raise DiffpathError("class map", where=path, why="it does not map classes to names", fix=example)
    for name in classes.values():
        if not _CLASS_NAME.fullmatch(name):
            raise DiffpathError(
                f"class {name!r}",
                where=path,
                why="names may hold up to 64 letters, digits, - and _ only",
                fix="choose another name",
            )
    if content.get("overlap", OVERLAPS[0]) not in OVERLAPS:
        fix = f"write {' or '.join(OVERLAPS)}"
        raise DiffpathError('"overlap"', where=path, why=f"{content['overlap']!r} is no rule", fix=fix)
    optional = {key: content[key] for key in ("overlap",) if key in content}
    return ClassMap(classes, frozenset(ignore), **optional)


def known_class(name: str | None, where: Path | str, class_map: ClassMap) -> str:
    """An annotation class that the map uses or ignores.

    Raises:
        DiffpathError: it does neither.
    """
    if name is None or (name not in class_map.classes and name not in class_map.ignore):
        known = sorted({*class_map.classes, *class_map.ignore})
        more = f" and {len(known) - 20} more" if len(known) > 20 else ""
        raise DiffpathError(
            f"annotation class {name!r}",
            where=where,
            why=f"the class map knows only {known[:20]}{more}",
            fix='add it to "classes" or to "ignore" in the file given to --classes',
        )
    return name
