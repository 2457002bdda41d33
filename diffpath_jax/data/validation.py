"""The images that training is watched on: which they are, whether it sees their patients, how far to trust them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from diffpath_jax.data import records
from diffpath_jax.data.manifest import Dataset, open_dataset, read_shard
from diffpath_jax.data.pipeline import TRAIN
from diffpath_jax.io.errors import DiffpathError, ExitCode

VAL = "val"
_KEY = "key 'data.val'"


def open_validation(directory: str, datasets: Sequence[Dataset]) -> Dataset:
    """Returns the data set whose validation split training is watched on.

    Args:
        directory: where it lies; empty for the first of the data sets that are trained on.
        datasets: those.

    Raises:
        DiffpathError: it is missing or damaged, has other images or classes or no validation split, or training sees
            one of its patients (exit code 4).
    """
    if not directory:
        return datasets[0]
    chosen = next((dataset for dataset in datasets if dataset.directory == Path(directory)), None)
    chosen = chosen or open_dataset(Path(directory))
    if chosen.schema != datasets[0].schema:
        why = f"its images and classes {chosen.schema} are not those of {datasets[0].directory}"
        fix = "name a data set of one size and one list of classes with those of data.train"
        raise DiffpathError(_KEY, where=chosen.directory, why=why, fix=fix)
    if VAL not in chosen.splits or not chosen.count(VAL):
        why, fix = "it has no val split", f"name a data set that has one; its splits are {', '.join(chosen.splits)}"
        raise DiffpathError(_KEY, where=chosen.directory, why=why, fix=fix)
    _check_patients(chosen, datasets)
    return chosen


def _check_patients(chosen: Dataset, datasets: Sequence[Dataset]) -> None:
    """Refuses validation images of patients that training sees, in real images or behind generated ones."""
    watched, at_hand = patients_of(chosen, VAL), by_images((*datasets, chosen))
    for dataset in datasets:
        if chosen.images in _behind(dataset) and optimism(chosen, VAL):
            continue  # Patients in both are how it was made, which is said; it is no mistake of the user's.
        seen, _ = patients_behind(dataset, at_hand)
        if shared := sorted(watched & seen):
            raise DiffpathError(
                _KEY,
                where=chosen.directory,
                why=f"{len(shared)} patients of its val split are trained on in {dataset.directory} ({shared[0]}, ...)",
                fix="name a data set whose validation patients are in no training split",
                code=ExitCode.REFUSED,
            )


def patients_of(dataset: Dataset, split: str) -> set[str]:
    """Returns the known patients of a split."""
    return {records.patient(data) for path in dataset.paths(split) for data in read_shard(path)} - {""}


def by_images(datasets: Iterable[Dataset]) -> dict[str, Dataset]:
    """Returns data sets by the digests of their images."""
    return {dataset.images: dataset for dataset in datasets}


def _behind(dataset: Dataset) -> set[str]:
    """Digests of the images of a data set, and of those that a model which drew it was trained on."""
    return {dataset.images, *(dataset.details.training_data or ())}


def patients_behind(dataset: Dataset, at_hand: Mapping[str, Dataset]) -> tuple[set[str], bool]:
    """Patients behind the training images of a data set; of generated ones, those behind their model's.

    Args:
        dataset: the data set.
        at_hand: data sets that models may have been trained on, as :func:`by_images` gives them.

    Returns:
        The patients that are known, and whether these are all: data sets of a model may not be at hand.
    """
    if dataset.details.training_data is None:
        return patients_of(dataset, TRAIN), True
    sources = [at_hand.get(digest) for digest in dataset.details.training_data]
    patients = {name for source in sources if source for name in patients_of(source, TRAIN)}
    return patients, all(sources)


def optimism(dataset: Dataset, split: str, *, called: str = "") -> str:
    """Returns why numbers of a split are better than those of new patients will be; empty where nothing says so.

    The only place that knows: training, evaluations and pages say what it says.

    Args:
        dataset: the data set.
        split: the split.
        called: as the sentence names the data set, where it is passed on; by its directory if empty.
    """
    why = {
        "place": f"its {split} and {TRAIN} splits are parts of the same slide",
        "image": f"its patients are unknown, so one slide may have images in its {split} and its {TRAIN} split",
    }.get(dataset.details.split_by or "")
    if split == TRAIN or why is None:
        return ""
    return f"numbers of the {split} split of {called or dataset.directory} are optimistic: {why}"


def doubts(watched: Dataset, datasets: Sequence[Dataset]) -> Iterator[str]:
    """Yields why what training is watched on may mislead it.

    Args:
        watched: the data set whose validation split is looked at.
        datasets: those that are trained on.
    """
    if VAL not in watched.splits:
        yield f"{watched.directory} has no val split: nothing is looked at; name a data set that has one in data.val"
        return
    if watched.images in set().union(*map(_behind, datasets)) and (why := optimism(watched, VAL)):
        yield why
    at_hand = by_images((*datasets, watched))
    for dataset in datasets:
        if not _behind(dataset) <= set(at_hand):
            yield (
                f"whether {dataset.directory} shows patients of the val split of {watched.directory} is not known: "
                "its model was trained on a data set that is not at hand"
            )
