"""A run or a data set as a folder that may be passed on: weights, or images, with a card, and nothing private.

What goes in is listed, not what stays out: of a run its parameters, of a data set its images as a Parquet set. Folders
``private/`` and ``qa/`` are never read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from diffpath_jax.data import card, marking
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.evaluation.record import MEASURED, EvaluationRecord, ImageSetRecord, SkippedAudit
from diffpath_jax.exchange import scorecard
from diffpath_jax.exchange.parquet_images import dataset_head, front_matter, labels_of, write_shards
from diffpath_jax.exchange.run_parameters import write_run
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import write_text
from diffpath_jax.runs import run as runs

WEIGHTS = "model.safetensors"
CARD = "README.md"
NOT_INCLUDED = "names of slides and patients are not included, nor private/ and qa/"


@dataclass(frozen=True)
class Terms:
    """What a publication is under.

    Attributes:
        licence: SPDX identifier, or the hub's word for one.
        evaluations: of what is published, by ``diffpath eval``.
        despite_copies: publish what an audit calls copied.
    """

    licence: str
    evaluations: Sequence[EvaluationRecord]
    despite_copies: bool = False


def publish_set(dataset: Dataset, terms: Terms, folder: Path) -> Literal["dataset"]:
    """Write the images of a data set, and its card, into a folder.

    Raises:
        DiffpathError: latents, an evaluation of another set, or an audit that found copies (exit code 4).
    """
    dataset.check_images()
    for each in terms.evaluations:
        measured = each.sets.get(MEASURED)
        if measured is None or measured.dataset != dataset.digest:
            raise _other("its images are not those of this set", dataset.directory)
    _refuse_copies(terms, dataset.directory)
    sizes = write_shards(dataset, folder)
    head = {"license": terms.licence, **dataset_head(dataset, sizes)}
    text = card.dataset_card(dataset.name, dataset.schema, labels_of(dataset), dataset.details)
    write_text(folder / CARD, f"{front_matter(head)}{text}\n{_score_text(_set_facts(dataset, terms))}")
    return "dataset"


def publish_run(run: runs.Run, trained: runs.Weights, terms: Terms, folder: Path) -> Literal["model"]:
    """Write the parameters of a run, and its card, into a folder.

    Raises:
        DiffpathError: an evaluation of another model, or an audit that found copies (exit code 4).
    """
    for each in terms.evaluations:
        training = None if isinstance(each.audit, SkippedAudit) else each.audit.sources.get("training")
        if isinstance(training, ImageSetRecord) and training.dataset not in run.images:
            raise _other("its audit looked at other training images", run.workdir)
    _refuse_copies(terms, run.workdir)
    write_run(run, trained, folder / WEIGHTS)
    head = {"license": terms.licence, "library_name": "diffpath", "tags": ["histopathology", "jax"]}
    text = [
        f"# {run.workdir.name}",
        "",
        f"Parameters of a run of task {run.config.task}: images of {run.image_px[1]} x {run.image_px[0]} px at "
        f"{run.mpp:.4g} um/px, classes {', '.join(run.classes)}.",
        "",
        f"`diffpath sample --weights {WEIGHTS}` draws from a diffusion model; every image says that it is generated.",
        "",
    ]
    facts = scorecard.Facts(
        terms.evaluations,
        completeness=("the file says network, noise, classes, um/px and size of the images",),
        compliance=(f"licence {terms.licence}", NOT_INCLUDED),
        comprehension=(
            f"step {trained.step}, digest {trained.digest[:16]}",
            f"trained on images {', '.join(digest[:16] for digest in run.images)}",
        ),
    )
    write_text(folder / CARD, front_matter(head) + "\n".join(text) + f"\n{_score_text(facts)}")
    return "model"


def _set_facts(dataset: Dataset, terms: Terms) -> scorecard.Facts:
    details = dataset.details
    is_generated = marking.is_generated(details)
    marked = "every image says that it is generated" if is_generated else "real images, under keyed hashes"
    made = [f"{name}: {value}" for name, value in (details.sampling or {}).items()]
    trained_on = [f"model trained on images {digest[:16]}" for digest in details.training_data or ()]
    return scorecard.Facts(
        terms.evaluations,
        completeness=(f"class, um/px ({details.mpp:.4g}) and field of view ({details.fov_um:.4g} um) of every image",),
        compliance=(f"licence {terms.licence}", marked, NOT_INCLUDED),
        comprehension=(f"{details.command}".strip() or "made by diffpath", *trained_on, *made),
    )


def _score_text(facts: scorecard.Facts) -> str:
    said = "\n".join(f"- {verdict}" for verdict in scorecard.verdicts(facts.evaluations))
    return f"## Memorisation audit\n\n{said}\n\n## Scorecard\n\n" + "\n".join(scorecard.lines(facts)) + "\n"


def _refuse_copies(terms: Terms, where: Path) -> None:
    if (found := scorecard.alarms(terms.evaluations)) and not terms.despite_copies:
        fix = "take the copies out (diffpath transform), or say --despite_copies, which the card will show"
        raise DiffpathError("audit", where=where, why=found[0], fix=fix, code=ExitCode.REFUSED)


def _other(why: str, where: Any) -> DiffpathError:
    fix = "name evaluations of what is published"
    return DiffpathError("--evals", where=where, why=why, fix=fix, code=ExitCode.REFUSED)
