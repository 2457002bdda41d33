"""The images of a data set in TFDS form, as sources. It is read without TensorFlow, which needs ArrayRecord files."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_prep.sources import digests
from data_prep.sources.images import BATCH, ImageBatch, Picture
from data_prep.splits.splits import ALIASES
from diffpath_jax.io.errors import DiffpathError, ExitCode

PATIENT = "patient"
_PREPARE = (
    "prepare it with tfds.builder(NAME, file_format='array_record').download_and_prepare(), or name its directory"
)


@dataclass(frozen=True)
class TfdsImages:
    """Some examples of a data set.

    Attributes:
        directory: of the data set.
        file: the shard that holds them.
        split: the split of the data set that the shard is part of.
        start: the first of them, in the split.
        stop: the first after them.
        image: the feature that is the image.
        label: the feature that is the class.
        labels: names of the classes.
        knows_patients: it has a feature :data:`PATIENT`, which is not empty.
    """

    directory: Path
    file: Path
    split: str
    start: int
    stop: int
    image: str
    label: str
    labels: tuple[str, ...]
    knows_patients: bool

    @property
    def where(self) -> Path:
        """The shard."""
        return self.file

    @property
    def size(self) -> int:
        """Number of examples."""
        return self.stop - self.start

    def stamp(self) -> digests.Stamp:
        """Stamp of the shard."""
        return digests.stamp(self.file)

    def content(self, memory: Path) -> Any:
        """Digest of the shard, and which of its examples are meant."""
        features = digests.sha256(self.directory / "features.json")
        (shard,) = digests.sha256_remembered([self.file], memory)
        return {"shard": shard, "features": features, "examples": [self.split, self.start, self.stop]}

    def read(self, positions: Sequence[int] | None = None) -> Iterator[Picture]:
        """Every example, in order, or some of them.

        Raises:
            DiffpathError: the shard is damaged (exit code 5).
        """
        for example in self._examples(range(self.size) if positions is None else positions):
            content, label = example[self.image], int(example[self.label])
            if not isinstance(content, bytes):
                content = np.asarray(content)
            # Images without a class have the label -1.
            name = self.labels[label] if 0 <= label < len(self.labels) else ""
            patient = _text(example[PATIENT]) if self.knows_patients else ""
            if self.knows_patients and not patient:
                fix = "name it, or give the images as files with --patients"
                content = DiffpathError("patient", where=self.file, why="it names no patient, and others do", fix=fix)
            yield Picture(name, patient, content)

    def names(self, positions: Sequence[int]) -> Sequence[tuple[str, str]]:
        """Place in the data set and patient of some examples."""
        files = [f"{self.split}[{self.start + position}]" for position in positions]
        if not self.knows_patients:
            return [(file, "") for file in files]
        examples = self._examples(positions)
        return [(file, _text(example[PATIENT])) for file, example in zip(files, examples, strict=True)]

    def patient_of_first(self) -> str:
        """Returns the patient of the first example."""
        return _text(next(self._examples([0]))[PATIENT])

    def _examples(self, positions: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        try:
            builder = tfds.builder_from_directory(self.directory)
            decoders = {}
            if isinstance(builder.info.features[self.image], tfds.features.Image):
                # The files inside are decoded where all image files are: strictly.
                decoders = {self.image: tfds.decode.SkipDecoding()}
            source = builder.as_data_source(f"{self.split}[{self.start}:{self.stop}]", decoders=decoders)
            for position in positions:
                yield source[position]
        except DiffpathError:
            raise
        except Exception as error:
            why = f"cannot be read ({error!r:.200})"
            raise DiffpathError(
                "shard", where=self.file, why=why, fix="copy it again", code=ExitCode.DAMAGED
            ) from error


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def find_batches(name: str, *, mpp: float, keep_splits: bool) -> tuple[ImageBatch, ...]:
    """The images of a data set, in batches.

    Args:
        name: its directory, or its name, if it lies where TFDS looks for it.
        mpp: um per pixel of its images.
        keep_splits: keep its own splits if it has several; otherwise they are dealt out.

    Raises:
        DiffpathError: it is not there, is not in ArrayRecord files, or has no image with a class.
    """
    builder = _builder(name)
    image, label = _features(name, builder.info.features)
    labels = tuple(builder.info.features[label].names)
    own_splits = {split: info for split, info in builder.info.splits.items() if info.num_examples}
    keep_splits = keep_splits and len(own_splits) > 1
    if keep_splits and (other := sorted(set(own_splits) - set(ALIASES))):
        fix = "give --fractions or --folds: all images are then dealt out anew"
        why = f"its splits {other} are none of {sorted(set(ALIASES.values()))}"
        raise DiffpathError("splits", where=name, why=why, fix=fix)
    images = [
        TfdsImages(Path(builder.data_path), file, split, start, stop, image, label, labels, knows_patients=False)
        for split, info in own_splits.items()
        for file, start, stop in _ranges(info)
    ]
    if PATIENT in builder.info.features and images[0].patient_of_first():
        images = [dataclasses.replace(some, knows_patients=True) for some in images]
    return tuple(ImageBatch(some, ALIASES[some.split] if keep_splits else None, mpp) for some in images)


def _ranges(info: Any) -> Iterator[tuple[Path, int, int]]:
    """Shard, first example and the one after the last of every batch of a split."""
    start = 0
    for file, length in zip(info.filepaths, info.shard_lengths, strict=True):
        for first in range(start, start + length, BATCH):
            yield Path(file), first, min(first + BATCH, start + length)
        start += length


def _builder(name: str) -> Any:
    try:
        if Path(name).is_dir():
            builder = tfds.builder_from_directory(Path(name).absolute())
        else:
            builder = tfds.builder(name)
        prepared = builder.info.splits.total_num_examples > 0
    except Exception as error:
        why = " ".join(str(error).split())[:200]
        raise DiffpathError("TFDS data set", where=name, why=why, fix="name a data set, or its directory") from error
    if not prepared:
        raise DiffpathError("TFDS data set", where=name, why=f"not in {builder.data_path}", fix=_PREPARE)
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        why = f"its files are {builder.info.file_format.value}, which need TensorFlow"
        raise DiffpathError("TFDS data set", where=name, why=why, fix=_PREPARE)
    return builder


def _features(name: str, features: Any) -> tuple[str, str]:
    """Names of the image and of the class: the only ones, or those that are called so."""
    flat = dict(features.items()) if hasattr(features, "items") else {}
    images = [key for key, feature in flat.items() if isinstance(feature, tfds.features.Image) or key == "image"]
    labels = [key for key, feature in flat.items() if isinstance(feature, tfds.features.ClassLabel)]
    image, label = (_only(keys, called) for keys, called in ((images, "image"), (labels, "label")))
    if image is None or label is None:
        why = f"its features {sorted(flat)} are not one image with one class"
        fix = "name a data set with the features image and label"
        raise DiffpathError("TFDS data set", where=name, why=why, fix=fix)
    return image, label


def _only(keys: Sequence[str], called: str) -> str | None:
    if called in keys:
        return called
    return keys[0] if len(keys) == 1 else None
