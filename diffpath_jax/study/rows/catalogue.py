"""All rows of a study, in the order of its page."""

from diffpath_jax.study.row import Row
from diffpath_jax.study.rows import controls, pictures, privacy, quality, reader, realness, reports, scarcity, worth

ROWS: dict[str, Row] = {
    row.key: row
    for row in sorted(
        (
            *pictures.ROWS,
            *quality.ROWS,
            *worth.ROWS,
            *scarcity.ROWS,
            *controls.ROWS,
            *realness.ROWS,
            *privacy.ROWS,
            *reader.ROWS,
            *reports.ROWS,
        ),
        key=lambda row: (("F", "T", "Q", "P", "H", "R").index(row.key[0]), row.key),
    )
}
