"""The patient of each slide or image, from the user's table: closed to all that could put one in two splits."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.tables import lookup
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.tables import composed, header, read_rows


@dataclass(frozen=True)
class Owner:
    """The patient of something, and the split that the user wants it in, if the table says so."""

    patient: str
    split: str | None


@dataclass(frozen=True)
class PatientTable:
    """A table of patients of slides or images.

    Attributes:
        path: its file.
        owners: by the name in the table.
        knows_patients: it says of whom each is, and not its split alone, nor that each image is a patient's own.
    """

    path: Path
    owners: Mapping[str, Owner]
    knows_patients: bool = True

    def owner(self, what: str, names: Sequence[str]) -> Owner:
        """Returns the patient of a slide or image.

        Args:
            what: as errors name it.
            names: all that it may be called in the table.

        Raises:
            DiffpathError: no row names it, or two do and they differ.
        """
        owner = lookup(self.owners, [composed(name) for name in names], what="patient", where=self.path)
        if owner is None:
            raise DiffpathError("patient", where=self.path, why=f"no row for {what}", fix="add the row")
        return owner


def read_patients(path: Path, *, column: str, splits: Sequence[str]) -> PatientTable:
    """Read a CSV with the columns ``column`` and ``patient``, and perhaps ``split``; for images the latter is enough.

    Args:
        path: the file.
        column: ``slide`` or ``image``.
        splits: what may stand in the column ``split``.

    Raises:
        DiffpathError: the table is not as it should be, one name has two patients or splits, two patients look alike,
            or one patient is in two splits.
    """
    owners: dict[str, Owner] = {}
    spelt: dict[str, str] = {}
    places: dict[str, str | None] = {}
    for row in _rows(path, column):
        name, owner = row[column], Owner(row.get("patient", ""), row.get("split"))
        if owner.split not in (None, *splits):
            fix = f"write one of {', '.join(splits)}"
            raise DiffpathError("split", where=path, why=f"{owner.split!r} of {name} is none", fix=fix)
        if owners.setdefault(name, owner) != owner:
            why, fix = f"{name} stands twice with other values", f"give each {column} one patient (and one split)"
            raise DiffpathError("table", where=path, why=why, fix=fix)
        if not owner.patient:
            continue
        before = spelt.setdefault(_bare(owner.patient), owner.patient)
        if before != owner.patient:
            why = f"{before!r} and {owner.patient!r} look like one patient"
            raise DiffpathError("patient", where=path, why=why, fix="write them alike, or tell them apart more clearly")
        if places.setdefault(owner.patient, owner.split) != owner.split:
            why = f"in {places[owner.patient]} and in {owner.split}"
            raise DiffpathError(f"patient {owner.patient!r}", where=path, why=why, fix="give each patient one split")
    named = all(owner.patient for owner in owners.values())
    itself = column == "image" and all(_is_name_of(owner.patient, name) for name, owner in owners.items())
    return PatientTable(path, owners, knows_patients=named and not itself)


def _rows(path: Path, column: str) -> list[dict[str, str]]:
    """Returns the rows of a table; one of images may state splits and no patients."""
    if column == "image" and "patient" not in header(path):
        return read_rows(path, columns=(column, "split"))
    return read_rows(path, columns=(column, "patient"), optional=("split",))


def _is_name_of(patient: str, image: str) -> bool:
    """Returns whether a patient is called as an image is: who does not know the patients writes such a table."""
    return patient in (image, Path(image).name, Path(image).stem)


def _bare(text: str) -> str:
    """Returns an identifier without what is easily written otherwise: case, spaces, kinds of a letter, 007 and 7.0."""
    bare = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    number = re.fullmatch(r"0*(\d+)(?:\.0*)?", bare)
    return number[1] if number else bare
