"""The use of annotation classes: their names in the data set, and those left out or cut out on purpose."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import read_json

OVERLAPS = ("reject", "priority")
UNCLASSIFIED = ""
_KEYS = ("classes", "ignore", "exclude", "unclassified", "overlap")
# Class names become file and folder names.
_CLASS_NAME = re.compile(r"[\w-]{1,64}")


@dataclass(frozen=True)
class ClassMap:
    """The use of annotation classes.

    Attributes:
        classes: annotation class -> class of the data set; :data:`UNCLASSIFIED` stands for areas without a class.
        ignore: annotation classes that are known and not used.
        exclude: annotation classes whose areas are cut out of those of all others.
        overlap: where regions of several classes overlap, the area is excluded (``reject``), or goes to the class that
            the map names first (``priority``).
    """

    classes: Mapping[str, str]
    ignore: frozenset[str]
    overlap: str = OVERLAPS[0]
    exclude: frozenset[str] = frozenset()

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

    May be added: ``"exclude": ["Annotation class"]``; ``"unclassified"``, for areas without a class, one of
    ``"ignore"``, ``"exclude"`` and a class of the data set; ``"overlap": "priority"``.

    Raises:
        DiffpathError: the file is missing or says something else.
    """
    example = 'write {"classes": {"Tumour": "tumour"}, "ignore": ["Pen"]}'
    content = read_json(path, what="class map", fix=example)
    if not _is_class_map(content):
        why = f"it does not map classes to names, or has other keys than {', '.join(_KEYS)}"
        raise DiffpathError("class map", where=path, why=why, fix=example)
    classes, lists = dict(content["classes"]), {key: set(content.get(key, [])) for key in ("ignore", "exclude")}
    if (use := content.get("unclassified")) in lists:
        lists[use].add(UNCLASSIFIED)
    elif use is not None:
        classes[UNCLASSIFIED] = use
    for name in classes.values():
        if not _CLASS_NAME.fullmatch(name):
            why = "names may hold up to 64 letters, digits, - and _ only"
            raise DiffpathError(f"class {name!r}", where=path, why=why, fix="choose another name")
    _check_used_once(path, {"classes": set(classes), **lists})
    overlap = content.get("overlap", OVERLAPS[0])
    if overlap not in OVERLAPS:
        fix = f"write {' or '.join(OVERLAPS)}"
        raise DiffpathError('"overlap"', where=path, why=f"{overlap!r} is no rule", fix=fix)
    return ClassMap(classes, frozenset(lists["ignore"]), overlap, frozenset(lists["exclude"]))


def _is_class_map(content: Any) -> bool:
    """Returns whether a file has the keys of a class map, with values of the right types."""
    if not isinstance(content, dict) or not set(content) <= set(_KEYS):
        return False
    classes, lists = content.get("classes"), [content.get(key, []) for key in ("ignore", "exclude")]
    if not isinstance(classes, dict) or not classes or not all(isinstance(names, list) for names in lists):
        return False
    names = [*classes.values(), *lists[0], *lists[1], content.get("unclassified", "")]
    return all(isinstance(name, str) for name in names)


def _check_used_once(path: Path, uses: Mapping[str, set[str]]) -> None:
    """Refuse a class that is to be excluded and something else; one in "classes" and "ignore" is ignored, as ever.

    Raises:
        DiffpathError: there is one.
    """
    if twice := sorted(uses["exclude"] & (uses["classes"] | uses["ignore"])):
        why = f'{twice[0]!r} stands in "exclude" and elsewhere'
        raise DiffpathError("class map", where=path, why=why, fix="keep one of them")


def known_class(name: str | None, where: Path | str, class_map: ClassMap) -> str:
    """Returns an annotation class that the map uses, ignores or excludes; :data:`UNCLASSIFIED` for none.

    Raises:
        DiffpathError: it does neither.
    """
    key = UNCLASSIFIED if name is None else name
    if key in class_map.classes or key in class_map.ignore or key in class_map.exclude:
        return key
    known = sorted({*class_map.classes, *class_map.ignore, *class_map.exclude} - {UNCLASSIFIED})
    more = f" and {len(known) - 20} more" if len(known) > 20 else ""
    raise DiffpathError(
        f"annotation class {name!r}",
        where=where,
        why=f"the class map knows only {known[:20]}{more}",
        fix='add it to "classes", "ignore" or "exclude" in the file given to --classes'
        + (', or say what is done with areas without a class as "unclassified"' if name is None else ""),
    )
