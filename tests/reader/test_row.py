"""The row of a study shows what readers told, each number with its place."""

import json
from functools import reduce
from pathlib import Path

from diffpath_jax import cli
from diffpath_jax.config import files as config_files
from diffpath_jax.reader import key
from diffpath_jax.study.config import study_config, with_defaults
from diffpath_jax.study.results import Results
from diffpath_jax.study.rows import reader
from diffpath_jax.study.rows.catalogue import ROWS
from diffpath_jax.study.steps import StudySteps
from tests.reader.folders import answer, make

DEMO = "diffpath:study_demo:debug"


def test_numbers_stand_where_the_row_says(tmp_path: Path, real: Path, generated: Path) -> None:
    files = [tmp_path / f"{number}.csv" for number in (1, 2)]
    words = ["--config.reader.readers=2", f"--config.reader.answers={','.join(map(str, files))}"]
    config = study_config(config_files.load(DEMO, words, with_defaults), where=DEMO)
    study = StudySteps(config, tmp_path)
    assert make(reader.pages(study).out, real, generated, "--images", "8", "--readers", "2") == 0
    made = key.read(reader.pages(study).out)
    for number, path in enumerate(files, start=1):
        answer(path, made, number, right=0.8)
    assert cli.main(list(reader.scores(study).command)) == 0
    table = ROWS["H"].show(study, Results(tmp_path)).tables[0]
    cells = list(table.cells)
    assert len(cells) == 3 * 3 + 2
    for _, _, cell in cells:
        name, pointer = cell.source.split("#/")
        content = json.loads((tmp_path / name).read_text())
        assert resolve(content, pointer) == cell.value


def resolve(content: object, pointer: str) -> object:
    """The value at a JSON pointer."""
    return reduce(lambda own, part: own[int(part) if isinstance(own, list) else part], pointer.split("/"), content)
