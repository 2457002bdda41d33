"""The key of a reader study: which image each reader sees when. It never leaves whoever made the study."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from diffpath_jax.evaluation.record import ImageSetRecord
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.sealed import read_sealed, write_sealed

FOLDER = "private"
FORMAT: Literal["diffpath-reader-1"] = "diffpath-reader-1"


@dataclass(frozen=True)
class Case:
    """An image, or a pair of one of either kind.

    Attributes:
        real: number of the real image in its split; none without one.
        generated: number of the generated image in its set; none without one.
        label: class, a number among the key's classes; 0 where there are none.
        unit: what is drawn together in a replicate: the patient of the real image, by a number, or the image.
    """

    real: int | None
    generated: int | None
    label: int
    unit: str


@dataclass(frozen=True)
class Trial:
    """A case as one reader sees it.

    Attributes:
        case: its number.
        swapped: of a pair, whether the generated image is A and not B.
    """

    case: int
    swapped: bool


@dataclass(frozen=True)
class Key:
    """A reader study.

    Attributes:
        format: of the file.
        study: name of the study, by its digest.
        question: name of the question.
        classes: of the images; none where they have none.
        seed: of the draw.
        real: the real images.
        generated: the generated images.
        cases: what is shown.
        readers: trials of each reader, in their order; all see the same cases.
        warnings: what is to be doubted.
    """

    format: Literal["diffpath-reader-1"]
    study: str
    question: str
    classes: tuple[str, ...]
    seed: int
    real: ImageSetRecord
    generated: ImageSetRecord
    cases: tuple[Case, ...]
    readers: tuple[tuple[Trial, ...], ...]
    warnings: tuple[str, ...]


def path_of(directory: Path, study: str) -> Path:
    """Returns where the key of a study lies below the directory of its pages."""
    return directory / FOLDER / f"key_{study}.json"


def write(path: Path, key: Key) -> None:
    """Writes a key."""
    write_sealed(path, asdict(key))


def read(path: Path) -> Key:
    """Returns a key.

    Args:
        path: the file, or the directory of a study's pages.

    Raises:
        DiffpathError: there is none, or it is damaged (exit code 5).
    """
    if path.is_dir():
        keys = sorted((path / FOLDER).glob("key_*.json"))
        if not keys:
            fix = "name the directory of `diffpath reader make`, or the key in its private folder"
            raise DiffpathError("key", where=path, why="there is none", fix=fix)
        path = keys[0]
    return read_sealed(path, Key, what="key of a reader study", fix="make the study again by the same command")
