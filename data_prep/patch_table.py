"""Where every patch came from. Names slides and patients: for the group's own eyes."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep import tiling
from data_prep.quality import Scores
from data_prep.unit import PRIVATE, Job, Prepared, Source
from diffpath_jax.files import replace_file

FILE = "patches.parquet"
_TEXT = ("slide_file", "patient", "slide", "split", "class", "slide_mpp_source")
_SCORES = tuple(score.name for score in fields(Scores))
_NUMBERS = ("x_px0", "y_px0", "width_px0", "height_px0", "mpp", "fov_um", "roi_share", "tissue_share", *_SCORES)
SCHEMA = pa.schema(
    [("index", pa.int64()), *((name, pa.string()) for name in _TEXT), *((name, pa.float64()) for name in _NUMBERS)]
)

WriteRows = Callable[[Source, Prepared, Sequence[tiling.Field], Sequence[str]], None]


@contextlib.contextmanager
def writer(job: Job) -> Iterator[WriteRows]:
    """A function that adds the fields of one slide, with their splits; the table is there when the block ends."""
    with replace_file(job.out / PRIVATE / FILE) as temporary, pq.ParquetWriter(temporary, SCHEMA) as table:

        def write(source: Source, prepared: Prepared, kept: Sequence[tiling.Field], assigned: Sequence[str]) -> None:
            rows = [
                {
                    "slide_file": source.slide.name,
                    "patient": source.patient,
                    "slide": prepared.identity.slide,
                    "index": index,
                    "split": split,
                    "class": field.label,
                    **{f"{key}_px0": value for key, value in asdict(field.box).items()},
                    "mpp": job.fields.mpp,
                    "slide_mpp_source": prepared.scale["source"],
                    "fov_um": job.fields.fov_um,
                    "roi_share": field.roi_share,
                    "tissue_share": field.tissue_share,
                    **(asdict(field.scores) if field.scores else {}),
                }
                for index, (field, split) in enumerate(zip(kept, assigned, strict=True))
            ]
            table.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))

        yield write
