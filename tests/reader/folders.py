"""Folders of images that a reader study is made of, and answers to it."""

from pathlib import Path

import cv2
import numpy as np

from diffpath_jax import cli
from diffpath_jax.reader import key, page
from diffpath_jax.reader.question import QUESTIONS

CLASSES = ("normal", "tumour")
SIDE = 8


def write_folder(folder: Path, *, grey: int, count: int = 8) -> Path:
    """Writes images of two classes: noise around a grey level, the first class flat in its upper half."""
    rng = np.random.default_rng(grey)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(grey - 20, grey + 20, (SIDE, SIDE, 3), dtype=np.uint8)
            image[: SIDE // 2] = grey if name == "normal" else image[: SIDE // 2]
            cv2.imwrite(str(folder / name / f"{number}.png"), image)
    return folder


def make(out: Path, real: Path, generated: Path, *words: str) -> int:
    """Returns the exit code of ``diffpath reader make``."""
    options = ["--real", real, "--generated", generated, "--out", out, *words]
    return cli.main(["reader", "make", *map(str, options)])


def answer(path: Path, study: key.Key, reader: int, right: float = 1.0, seed: int = 0) -> Path:
    """Writes the file of a reader who is right with a probability, and guesses the opposite otherwise."""
    question, rng = QUESTIONS[study.question], np.random.default_rng([seed, reader])
    lines = [",".join(page.COLUMNS)]
    for number, trial in enumerate(study.readers[reader - 1], start=1):
        case, is_right = study.cases[trial.case], rng.random() < right
        if question.shown == 2:
            told = 1 if trial.swapped == is_right else 2
        elif question.choices:
            told = 5 if (case.generated is not None) == is_right else 1
        else:
            told = 1 + (case.label if is_right else 1 - case.label)
        lines.append(f"{study.study},{reader},{number},{told},{1000 * number},0")
    path.write_text("\n".join(lines) + "\n")
    return path
