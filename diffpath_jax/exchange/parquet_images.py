"""Data sets as Parquet image sets of the Hugging Face kind, which ``datasets.load_dataset`` opens by their folder.

``data/SPLIT-00000-of-0000N.parquet`` hold ``image`` (a struct of the bytes of a PNG file and its name) and ``label``;
what the label means stands in the schema's metadata under ``huggingface``, and again in the head of ``README.md``.
"""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from diffpath_jax.data import card, marking
from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.records import PatchRecord
from diffpath_jax.exchange.class_folders import about, file_stem
from diffpath_jax.io.files import new_folder, replace_file, write_text

# Of pixels, before they are compressed.
SHARD_BYTES = 2**29
ROWS_A_GROUP = 512
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_COLUMNS = {
    "mpp": "float32",
    "fov_um": "float32",
    "slide": "string",
    "patient": "string",
    "index": "int64",
    marking.COLUMN: "string",
}


def write_parquet_set(dataset: Dataset, folder: Path) -> int:
    """Write every split of a data set into a new folder.

    Returns:
        The number of images.

    Raises:
        DiffpathError: latents, or something lies there already (exit code 4).
    """
    dataset.check_images()
    with new_folder(folder) as temporary:
        sizes = write_shards(dataset, temporary)
        text = card.dataset_card(dataset.name, dataset.schema, labels_of(dataset), dataset.details)
        write_text(temporary / "README.md", f"{front_matter(dataset_head(dataset, sizes))}{text}")
    return sum(dataset.count(split) for split in dataset.splits)


def write_shards(dataset: Dataset, folder: Path) -> dict[str, tuple[int, int]]:
    """Write every split below ``folder/data``.

    Returns:
        Of each split the bytes of its files, and of its images before they were packed.
    """
    return {split: _write_split(dataset, split, folder / "data") for split in dataset.splits}


def features(classes: tuple[str, ...]) -> dict[str, Any]:
    """Returns the features of a set as the ``datasets`` library writes them into a schema."""
    values = {name: {"dtype": kind, "_type": "Value"} for name, kind in _COLUMNS.items()}
    return {"image": {"_type": "Image"}, "label": {"names": list(classes), "_type": "ClassLabel"}, **values}


def schema(classes: tuple[str, ...]) -> pa.Schema:
    """Returns the schema of the files of a set."""
    columns = [("image", _IMAGE), ("label", pa.int64())]
    columns += [(name, pa.type_for_alias(kind)) for name, kind in _COLUMNS.items()]
    return pa.schema(columns, {"huggingface": json.dumps({"info": {"features": features(classes)}})})


def _write_split(dataset: Dataset, split: str, folder: Path) -> tuple[int, int]:
    """Returns the bytes of the files of a split, and of its images before they were packed."""
    count, own = dataset.count(split), schema(dataset.schema.classes)
    number = max(1, math.ceil(count * math.prod(dataset.schema.image_px) * 3 / SHARD_BYTES))
    rows, stored, held = (_row(dataset, record) for record in dataset.read(split)), 0, 0
    for shard in range(number):
        path = folder / f"{split}-{shard:05d}-of-{number:05d}.parquet"
        size = count // number + (shard < count % number)
        with replace_file(path) as temporary, pq.ParquetWriter(temporary, own) as file:
            for group in _grouped(itertools.islice(rows, size)):
                file.write_table(pa.Table.from_pylist(group, schema=own))
                held += sum(len(row["image"]["bytes"]) for row in group)
        stored += path.stat().st_size
    return stored, held


def _grouped(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while group := list(itertools.islice(rows, ROWS_A_GROUP)):
        yield group


def _row(dataset: Dataset, record: PatchRecord) -> dict[str, Any]:
    said = about(dataset, record)
    return {
        "image": {"bytes": encode_png(record.image, said), "path": f"{file_stem(record)}.png"},
        "label": record.label,
        **{name: getattr(record, name) for name in ("mpp", "fov_um", "slide", "patient", "index")},
        marking.COLUMN: marking.SOURCE_TYPE if said else None,
    }


def dataset_head(dataset: Dataset, sizes: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """Returns what the library and the hub read of a set at the head of its card; ``sizes`` of its written files."""
    names = {str(number): name for number, name in enumerate(dataset.schema.classes)}
    described = [
        {"name": "image", "dtype": "image"},
        {"name": "label", "dtype": {"class_label": {"names": names}}},
        *({"name": name, "dtype": kind} for name, kind in _COLUMNS.items()),
    ]
    splits = [
        {"name": split, "num_bytes": held, "num_examples": dataset.count(split)} for split, (_, held) in sizes.items()
    ]
    stored, held = (sum(size[i] for size in sizes.values()) for i in (0, 1))
    info = {"features": described, "splits": splits, "download_size": stored, "dataset_size": held}
    files = [{"split": split, "path": f"data/{split}-*"} for split in sizes]
    synthetic = ["synthetic"] if marking.is_generated(dataset.details) else []
    return {
        "pretty_name": dataset.name,
        "task_categories": ["image-classification"],
        "tags": ["histopathology", *synthetic],
        "dataset_info": info,
        "configs": [{"config_name": "default", "data_files": files}],
    }


def front_matter(head: Mapping[str, Any]) -> str:
    """Returns the YAML head of a card. JSON is YAML, so values are written as JSON."""
    return "".join(["---\n", *(f"{key}: {json.dumps(value)}\n" for key, value in head.items()), "---\n\n"])


def labels_of(dataset: Dataset) -> dict[str, list[int]]:
    """Returns labels of every split, in the order of the classes."""
    counts = dataset.class_counts
    return {
        split: [label for label, name in enumerate(dataset.schema.classes) for _ in range(counts[split][name])]
        for split in dataset.splits
    }
