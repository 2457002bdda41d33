"""Where every patch came from. Names slides and patients: for the group's own eyes."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep import tiling
from data_prep.unit import PRIVATE, Job, Origin, Prepared
from diffpath_jax.files import replace_file

FILE = "patches.parquet"
_TEXT = ("slide_file", "patient", "slide", "split", "class", "slide_mpp_source")
_NUMBERS = ("x_px0", "y_px0", "width_px0", "height_px0", "mpp", "fov_um", "roi_share", "tissue_share")
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
            rows = [
                {
                    "slide_file": origin.file,
                    "patient": origin.patient,
                    "slide": origin.slide,
                    "index": 0 if origin.whole else index,
                    "split": split,
                    "class": field.label,
                    **{f"{key}_px0": value for key, value in asdict(field.box).items()},
                    "mpp": job.fields.mpp,
                    "slide_mpp_source": prepared.scale["source"],
                    "fov_um": job.fields.fov_um,
                    "roi_share": field.roi_share,
                    "tissue_share": None if origin.whole else field.tissue_share,
                }
                for index, (origin, field, split) in enumerate(zip(origins, kept, assigned, strict=True))
            ]
            table.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))

        yield write
