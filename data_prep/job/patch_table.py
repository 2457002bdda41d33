"""The origin of every patch. Names slides and patients: for the group's own eyes."""

import contextlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.fields import tiling
from data_prep.fields.quality import Scores
from data_prep.job.source_tasks import Prepared
from data_prep.sources.source import PRIVATE, Job, Origin
from diffpath_jax.io.files import replace_file

FILE = "patches.parquet"
_TEXT = ("slide_file", "patient", "slide", "split", "class", "slide_mpp_source")
_SCORES = tuple(score.name for score in fields(Scores))
_NUMBERS = ("x_px0", "y_px0", "width_px0", "height_px0", "mpp", "fov_um", "roi_share", "tissue_share", *_SCORES)
SCHEMA = pa.schema(
    [("index", pa.int64()), *((name, pa.string()) for name in _TEXT), *((name, pa.float64()) for name in _NUMBERS)]
)

WriteRows = Callable[[Sequence[Origin], Prepared, Sequence[tiling.Field], Sequence[str]], None]


@contextlib.contextmanager
def writer(job: Job) -> Iterator[WriteRows]:
    """A function that adds the fields of one source, with their splits; the table is there when the block ends."""
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(replace_file(job.out / PRIVATE / FILE))
        temporary.touch(mode=0o600)
        table = stack.enter_context(pq.ParquetWriter(temporary, SCHEMA))

        def write(
            origins: Sequence[Origin], prepared: Prepared, kept: Sequence[tiling.Field], assigned: Sequence[str]
        ) -> None:
            numbers = defaultdict[str, Iterator[int]](itertools.count)
            rows = [
                {
                    "slide_file": origin.file,
                    "patient": origin.patient,
                    "slide": origin.slide,
                    "index": next(numbers[origin.slide]),
                    "split": split,
                    "class": field.label,
                    **{f"{key}_px0": value for key, value in asdict(field.box).items()},
                    "mpp": job.fields.mpp,
                    "slide_mpp_source": prepared.scale.source,
                    "fov_um": job.fields.fov_um,
                    "roi_share": field.roi_share,
                    "tissue_share": field.tissue_share,
                    **(asdict(field.scores) if field.scores else {}),
                }
                for origin, field, split in zip(origins, kept, assigned, strict=True)
            ]
            table.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))

        yield write
