"""A preprocessing job: every slide staged, wherever that happens; then one dataset, in the order of the sources."""

import functools
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep import card, patch_table, qa, qa_page, repeats, shards, splits, tiling, unit
from data_prep.scheduling import Outcome, Scheduler, WorkerDied
from data_prep.unit import PRIVATE, Job, Placed, Prepared, Source
from diffpath_jax.data import manifest, records
from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.files import sweep
from diffpath_jax.progress import console, track


@dataclass(frozen=True)
class Slides:
    """What became of the slides of a job, in the order of the sources.

    Attributes:
        done: the slides that are staged.
        failed: why the others are not.
    """

    done: Sequence[tuple[Source, Prepared]]
    failed: Sequence[DiffpathError]

    def identities(self) -> list[list[Any]]:
        """What the dataset is made from: no path, no name of a slide."""
        return _identities([prepared.identity for _, prepared in self.done])


def _identities(found: Sequence[unit.Identity]) -> list[list[Any]]:
    return sorted([[i.slide, i.patient, i.regions, i.mpp] for i in found], key=str)


def run(job: Job, sources: Sequence[Source], scheduler: Scheduler) -> ExitCode:
    """Prepare every slide that is not done yet, then split and write the dataset.

    A dataset that lacks slides is an unfinished job: its staged slides stay, and the next run tries the others again.

    Raises:
        DiffpathError: no slide gives anything, or the directory belongs to another job (exit code 4).
        ExceptionGroup: a bug struck on some slides, which it names; the other slides are staged.
    """
    if _complete(job, sources):
        console.print(f"{job.out} is complete: nothing to do")
        return ExitCode.OK
    for folder in (job.out, job.out / shards.STAGING, job.out / PRIVATE, job.out / PRIVATE / unit.DIGESTS):
        sweep(folder)
    staging = shards.Staging(job.out, job.settings())
    slides = _prepare_all(job, sources, scheduler)
    if not any(prepared.count for _, prepared in slides.done):
        raise _nothing(job, sources, slides, staging)
    if not (slides.failed and _recorded_sources(job) == slides.identities()):
        slides, dataset = _assemble(job, slides, staging, scheduler)
        console.print(card.summary(dataset), soft_wrap=True)
    for failure in slides.failed:
        console.print(f"error: {failure}", markup=False, soft_wrap=True)
    if slides.failed:
        console.print(f"{len(slides.failed)} of {len(sources)} slides failed; the same command tries them again")
        return ExitCode.PARTIAL
    staging.clear()
    return ExitCode.OK


def _complete(job: Job, sources: Sequence[Source]) -> bool:
    """Whether the dataset is written and lacks no slide.

    Raises:
        DiffpathError: it is, by another job (exit code 4), or it is damaged (exit code 5).
    """
    if not (job.out / manifest.MANIFEST).exists():
        return False
    details = _details(job)
    if details.get("failed"):
        unfinished = {**details["job"], "sources": None}
        shards.refuse_other_job(job.out, unfinished, {**job.settings(), "sources": None})
        return False
    identities = _identities([unit.identify(job, source) for source in sources])
    shards.finished(job.out, {**job.settings(), "sources": identities})
    # Left over when a run was killed between its manifest and its end.
    shutil.rmtree(job.out / shards.STAGING, ignore_errors=True)
    return True


def _details(job: Job) -> Any:
    return manifest.open_dataset(job.out, verify=False).details


def _recorded_sources(job: Job) -> Any:
    """Sources of the dataset that an earlier run wrote, if any."""
    return _details(job)["job"]["sources"] if (job.out / manifest.MANIFEST).exists() else None


def _prepare_all(job: Job, sources: Sequence[Source], scheduler: Scheduler) -> Slides:
    results: dict[int, Prepared] = {}
    failed: dict[int, DiffpathError] = {}
    bugs: list[Exception] = []
    start, fields = time.monotonic(), 0
    prepare, _ = unit.tasks(job)
    with track("prep", total=len(sources), unit="slides") as progress:
        for outcome in scheduler(prepare, sources):
            source, error = sources[outcome.index], _as_failure(sources[outcome.index], outcome)
            if error is None:
                results[outcome.index] = outcome.result
                fields += outcome.result.count if outcome.result.fresh else 0
            elif not isinstance(error, DiffpathError):
                error.add_note(f"while preparing {source.slide}")
                bugs.append(error)
            elif error.code == ExitCode.REFUSED:
                # It would refuse every other slide as well.
                raise error
            else:
                failed[outcome.index] = error
            if outcome.result is not None and not outcome.result.fresh:
                progress.skip(1)
            else:
                progress.advance(1, f"{fields} patches, {fields / (time.monotonic() - start):.0f} patches/s")
    if bugs:
        raise ExceptionGroup("a bug; the other slides are staged", bugs)
    failed |= _copies(sources, results)
    done = [(sources[index], results[index]) for index in sorted(results.keys() - failed.keys())]
    return Slides(done, [failed[index] for index in sorted(failed)])


def _as_failure(source: Source, outcome: Outcome) -> Exception | None:
    """The error of an outcome; a dead worker is put down to the slide that it died of twice."""
    if not isinstance(outcome.error, WorkerDied):
        return outcome.error
    return DiffpathError(
        "slide",
        where=source.slide,
        why=f"the process that reads it dies ({outcome.error}), also with nothing beside it",
        fix="give it more memory, copy the slide again, or leave it out",
    )


def _copies(sources: Sequence[Source], results: dict[int, Prepared]) -> dict[int, DiffpathError]:
    """Slides with the same bytes as an earlier one: they would stand in the dataset twice, maybe in two splits."""
    first: dict[str, int] = {}
    return {
        index: DiffpathError(
            "slide",
            where=sources[index].slide,
            why=f"it has the same bytes as {sources[first[slide]].slide.name}",
            fix="leave one of them out",
        )
        for index in sorted(results)
        if first.setdefault(slide := results[index].identity.slide, index) != index
    }


def _nothing(job: Job, sources: Sequence[Source], slides: Slides, staging: shards.Staging) -> DiffpathError:
    """Why there is no dataset; a directory that no run has added a field to is emptied."""
    if not staging.holds_records() and not (job.out / manifest.MANIFEST).exists():
        staging.clear()
        # No record depends on the key yet: leave nothing behind.
        shutil.rmtree(job.out / PRIVATE, ignore_errors=True)
    return next(iter(slides.failed), None) or DiffpathError(
        "fields of view",
        where=sources[0].slide,
        why="none passed the annotation, tissue and quality filters",
        fix="lower --roi_min or --tissue_min, raise --blur_max or --pen_max, or annotate larger regions",
    )


def _assemble(
    job: Job, slides: Slides, staging: shards.Staging, scheduler: Scheduler
) -> tuple[Slides, manifest.Dataset]:
    """Split the fields of all slides, look for duplicates, then write tables, pictures, shards, card and manifest.

    One slide's fields and one record are in memory at a time. A slide whose overlay fails stays in the dataset, and
    is listed as failed.
    """
    assign, proof = _assignment(job, [prepared for _, prepared in slides.done])
    placed = [
        Placed(source, prepared.name, assign(prepared, _kept(staging, prepared))) for source, prepared in slides.done
    ]
    repeated = repeats.find(staging, placed, splits.SPLITS)
    repeats.write_table(job, slides.done, repeated)
    if job.duplicates == "drop":
        placed = repeats.drop(placed, repeated)
    labels: dict[str, list[int]] = {split: [] for split in splits.SPLITS}
    with patch_table.writer(job) as write_rows:
        for (source, prepared), slide in zip(slides.done, placed, strict=True):
            kept = _kept(staging, prepared)
            write_rows(source, prepared, kept, slide.assigned)
            for field, split in zip(kept, slide.assigned, strict=True):
                if split in labels:
                    labels[split].append(job.class_map.names.index(field.label))
    slides = Slides(slides.done, [*slides.failed, *_draw_all(job, placed, scheduler)])
    details = _describe(job, slides, proof, placed, repeats.summary(job, repeated))
    qa_page.write(qa_page.Content(job, staging, slides.done, slides.failed, placed, labels, details, repeated))
    schema = records.Schema((job.fields.patch_px, job.fields.patch_px), job.class_map.names)
    dataset = shards.write_dataset(
        job.out,
        name=job.name,
        schema=schema,
        splits=labels,
        items={split: _records(staging, placed, split) for split in splits.SPLITS},
        details=details,
        card=card.dataset_card(job.name, schema, labels, details),
    )
    return slides, dataset


def _kept(staging: shards.Staging, prepared: Prepared) -> list[tiling.Field]:
    fields = unit.staged_fields(staging.describe(prepared.name))
    return [field for field in fields if field.outcome == tiling.KEPT]


def _records(staging: shards.Staging, placed: Sequence[Placed], split: str) -> Iterator[bytes]:
    """Staged records of one split, in the order of the sources."""
    for slide in placed:
        if split in slide.assigned:
            found = staging.read(shards.Unit(slide.name, len(slide.assigned), {}))
            yield from (data for data, where in zip(found, slide.assigned, strict=True) if where == split)


def _draw_all(job: Job, placed: Sequence[Placed], scheduler: Scheduler) -> list[DiffpathError]:
    """Draw the overlays, and remove those of slides that are no longer part of the job."""
    qa.keep_only(job.out / qa.FOLDER, [slide.name for slide in placed])
    failed: dict[int, DiffpathError] = {}
    _, draw = unit.tasks(job)
    with track("overlays", total=len(placed), unit="slides") as progress:
        for outcome in scheduler(draw, placed):
            error = _as_failure(placed[outcome.index].source, outcome)
            if isinstance(error, DiffpathError):
                failed[outcome.index] = error
            elif error is not None:
                raise error
            progress.advance(1)
    return [failed[index] for index in sorted(failed)]


def _describe(
    job: Job, slides: Slides, proof: str, placed: Sequence[Placed], duplicates: dict[str, Any]
) -> dict[str, Any]:
    """Provenance, for the manifest."""
    outcomes = sum((Counter(prepared.outcomes) for _, prepared in slides.done), Counter())
    in_gap = sum(slide.assigned.count(splits.GAP) for slide in placed)
    return {
        "kind": "real",
        "mpp": job.fields.mpp,
        "fov_um": job.fields.fov_um,
        "job": {**job.settings(), "sources": slides.identities()},
        "command": "diffpath prep",
        "split_proof": proof,
        "outcomes": {
            **dict(sorted(outcomes.items())),
            "dropped in the gap": in_gap,
            "dropped as duplicates": duplicates["dropped"],
        },
        "duplicates": duplicates,
        "annotations": card.annotation_notes([prepared.annotations for _, prepared in slides.done]),
        "scales": [prepared.scale for _, prepared in slides.done],
        "failed": len(slides.failed),
        "versions": shards.versions("openslide-python", "openslide-bin", "shapely", "opencv-python-headless"),
    }


Assign = Callable[[Prepared, Sequence[tiling.Field]], list[str]]


def _assignment(job: Job, done: Sequence[Prepared]) -> tuple[Assign, str]:
    """How kept fields get their split, by patient or (one patient) by place, and one line that proves it."""
    patients = [prepared.identity.patient for prepared in done]
    if len(set(patients)) == 1:
        return functools.partial(_by_place, job), (
            f"one patient: split by place, in bands {job.split.gap_um:g} um apart; train, val and test are the same "
            "patient, so no number here says how well anything carries over to another patient"
        )
    counts: dict[str, Counter[str]] = {}
    for prepared in done:
        counts.setdefault(prepared.identity.patient, Counter()).update(prepared.kept)
    where = splits.split_patients(counts, job.split)
    proof = splits.prove_disjoint(patients, [where[patient] for patient in patients])
    return lambda prepared, kept: [where[prepared.identity.patient]] * len(kept), proof


def _by_place(job: Job, prepared: Prepared, kept: Sequence[tiling.Field]) -> list[str]:
    if not kept:
        return []
    return splits.split_by_place(
        [field.box for field in kept],
        [field.label for field in kept],
        fractions=job.split.fractions,
        gap_px=job.split.gap_um / prepared.scale["x"],
    )
