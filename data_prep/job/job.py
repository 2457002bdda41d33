"""A preprocessing job: every source staged, wherever that happens; then one dataset, in the order of the sources."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

from data_prep.fields import caps, tiling
from data_prep.job import assignment, duplicates, patch_table, qa_page, source_tasks
from data_prep.job.scheduling import Outcome, Scheduler, WorkerDied
from data_prep.job.source_tasks import Prepared, SplitAssignment
from data_prep.qa import pictures
from data_prep.sources.source import DIGESTS, PRIVATE, Identity, Job, Source, StagedSource, make_private
from data_prep.splits import folds
from diffpath_jax.data import card, manifest, marking, records, writer
from diffpath_jax.data.details import Details, DuplicateCounts
from diffpath_jax.data.staging import STAGING, Staging, Unit, finished, refuse_other_job
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sweep
from diffpath_jax.io.progress import console, track


@dataclass(frozen=True)
class Staged:
    """The sources of a job after staging, in their order.

    Attributes:
        done: the sources that are staged.
        failed: why the others are not, or parts of them.
    """

    done: Sequence[tuple[Source, Prepared]]
    failed: Sequence[DiffpathError]

    def identities(self) -> list[list[Any]]:
        """Returns the identities of the sources: no path, no name of a slide."""
        return _identities([(source, prepared.identity) for source, prepared in self.done])


def _identities(identified: Sequence[tuple[Source, Identity]]) -> list[list[Any]]:
    return sorted([[i.slide, i.patient, i.regions, i.mpp, source.split] for source, i in identified], key=str)


def run(job: Job, sources: Sequence[Source], scheduler: Scheduler) -> ExitCode:
    """Prepare every source that is not done yet, then split and write the dataset.

    A dataset that lacks slides is an unfinished job: its staged slides stay, and the next run tries the others again.

    Raises:
        DiffpathError: no slide gives anything, or the directory belongs to another job (exit code 4).
        ExceptionGroup: a bug struck on some slides, which it names; the other slides are staged.
    """
    if _complete(job, sources):
        console.print(f"{job.out} is complete: nothing to do")
        return ExitCode.OK
    make_private(job.out)
    for folder in (job.out, job.out / STAGING, job.out / PRIVATE, job.out / PRIVATE / DIGESTS):
        sweep(folder)
    staging = Staging(job.out, job.settings())
    staged = _prepare_all(job, sources, scheduler)
    if not any(prepared.count for _, prepared in staged.done):
        _print_failures(staged.failed[1:])
        raise _nothing(job, sources, staged, staging)
    # First of all: what they leave may be too little to be split.
    _print_failures(staged.failed)
    if not (staged.failed and _recorded_sources(job) == staged.identities()):
        before = len(staged.failed)
        staged, dataset = _assemble(job, staged, staging, scheduler)
        console.print(card.summary(dataset), soft_wrap=True)
        _print_failures(staged.failed[before:])
    for source, prepared in staged.done:
        if source.is_spatial and (why := prepared.why_empty):
            console.print(f"note: {source.where.name}: {why}", markup=False, soft_wrap=True)
    if staged.failed:
        total = f"{sum(source.size for source in sources)} {sources[0].item_noun}s"
        console.print(f"{len(staged.failed)} of {total} failed; the same command tries them again")
        return ExitCode.PARTIAL
    staging.clear()
    return ExitCode.OK


def _print_failures(failures: Sequence[DiffpathError]) -> None:
    for failure in failures:
        console.print(f"error: {failure}", markup=False, soft_wrap=True)


def _complete(job: Job, sources: Sequence[Source]) -> bool:
    """Returns whether the dataset is written and lacks no slide.

    Raises:
        DiffpathError: it is, by another job (exit code 4), or it is damaged (exit code 5).
    """
    if not (job.out / manifest.MANIFEST).exists():
        return False
    details = _details(job)
    if details.failed:
        unfinished = {**details.job, "sources": None}
        refuse_other_job(job.out, unfinished, {**job.settings(), "sources": None})
        return False
    identities = _identities([(source, source.identify(job)) for source in sources])
    finished(job.out, {**job.settings(), "sources": identities})
    # Left over when a run was killed between its manifest and its end.
    shutil.rmtree(job.out / STAGING, ignore_errors=True)
    return True


def _details(job: Job) -> Details:
    return manifest.open_dataset(job.out, verify=False).details


def _recorded_sources(job: Job) -> Any:
    """Sources of the dataset that an earlier run wrote, if any."""
    return _details(job).job["sources"] if (job.out / manifest.MANIFEST).exists() else None


def _prepare_all(job: Job, sources: Sequence[Source], scheduler: Scheduler) -> Staged:
    results: dict[int, Prepared] = {}
    failed: dict[int, DiffpathError] = {}
    bugs: list[Exception] = []
    start, fields = time.monotonic(), 0
    prepare, _ = source_tasks.tasks(job)
    with track("prep", total=sum(source.size for source in sources), unit=f"{sources[0].item_noun}s") as progress:
        for outcome in scheduler(prepare, sources):
            source, error = sources[outcome.index], _as_failure(sources[outcome.index], outcome)
            if error is None:
                results[outcome.index] = outcome.result
                called = source.where.name if source.is_spatial else f"images from {source.where.name} on"
                for doubt in outcome.result.scale.doubts:
                    console.print(f"note: {called}: {doubt}", markup=False, soft_wrap=True)
                fields += outcome.result.count if outcome.result.fresh else 0
            elif not isinstance(error, DiffpathError):
                error.add_note(f"while preparing {source.where}")
                bugs.append(error)
            elif error.code == ExitCode.REFUSED:
                # It would refuse every other slide as well.
                raise error
            else:
                failed[outcome.index] = error
            if outcome.result is not None and not outcome.result.fresh:
                progress.skip(source.size)
            else:
                progress.advance(source.size, f"{fields} patches, {fields / (time.monotonic() - start):.0f} patches/s")
    if bugs:
        raise ExceptionGroup("a bug; the other sources are staged", bugs)
    failed |= _copies(sources, results)
    done = [(sources[index], results[index]) for index in sorted(results.keys() - failed.keys())]
    parts = [failure for _, prepared in done for failure in prepared.failures]
    return Staged(done, [*(failed[index] for index in sorted(failed)), *parts])


def _as_failure(source: Source, outcome: Outcome) -> Exception | None:
    """The error of an outcome; want of memory, and a dead worker, are put down to the source that was read."""
    if isinstance(outcome.error, MemoryError):
        why = f"there is not enough memory for it ({outcome.error or 'none is left'})"
        fix = "read fewer at once with --workers, or leave it out"
        return DiffpathError(source.item_noun, where=source.where, why=why, fix=fix, code=ExitCode.SYSTEM)
    if not isinstance(outcome.error, WorkerDied):
        return outcome.error
    return DiffpathError(
        source.item_noun,
        where=source.where,
        why=f"the process that reads it dies ({outcome.error}), also with nothing beside it",
        fix="give it more memory, copy the slide again, or leave it out",
    )


def _copies(sources: Sequence[Source], results: dict[int, Prepared]) -> dict[int, DiffpathError]:
    """Slides with the same bytes as an earlier one: all their fields would be there twice, maybe in two splits."""
    first: dict[str, int] = {}
    return {
        index: DiffpathError(
            sources[index].item_noun,
            where=sources[index].where,
            why=f"it has the same bytes as {sources[first[slide]].where.name}",
            fix="leave one of them out",
        )
        for index in sorted(results)
        if sources[index].is_spatial and first.setdefault(slide := results[index].identity.slide, index) != index
    }


def _nothing(job: Job, sources: Sequence[Source], staged: Staged, staging: Staging) -> DiffpathError:
    """Why there is no dataset; a directory that no run has added a field to is emptied."""
    if not staging.holds_records() and not (job.out / manifest.MANIFEST).exists():
        staging.clear()
        # No record depends on the key yet: leave nothing behind.
        shutil.rmtree(job.out / PRIVATE, ignore_errors=True)
    outcomes = _count_outcomes(staged)
    said = ", ".join(f"{outcome}: {count}" for outcome, count in outcomes.most_common())
    return next(iter(staged.failed), None) or DiffpathError(
        "fields of view",
        where=sources[0].where,
        why="none passed the filters" + (f" ({said})" if said else ""),
        fix="annotate larger regions, name the --stain, or relax the limit that rejects most",
    )


def _count_outcomes(staged: Staged) -> Counter[str]:
    return sum((Counter(prepared.outcomes) for _, prepared in staged.done), Counter[str]())


def _assemble(job: Job, staged: Staged, staging: Staging, scheduler: Scheduler) -> tuple[Staged, manifest.Dataset]:
    """Split the fields of all sources, then write tables, pictures, page, shards, card and manifest.

    One source's fields and one record are in memory at a time. A slide whose overlay fails stays in the dataset, and
    is listed as failed.

    Raises:
        DiffpathError: every field is dropped.
    """
    assignments, repeated = _place(job, staged, staging)
    labels, proof = _list(job, staged, staging, assignments)
    dropped = Counter(split for source in assignments for split in source.assigned if split not in labels)
    if not any(labels.values()):
        raise _all_dropped(job, dropped)
    staged = Staged(staged.done, [*staged.failed, *_draw_all(job, assignments, scheduler)])
    details = _describe(job, staged, proof, dropped, duplicates.summary(job, repeated))
    qa_page.write(qa_page.Content(job, staging, staged.done, staged.failed, assignments, labels, details, repeated))
    schema = records.Schema((job.fields.patch_px, job.fields.patch_px), job.class_map.names)
    items = {split: _records(staging, assignments, split) for split in labels}
    folds.clear(job.out, job.split.folds)
    shards = writer.write_shards(job.out, name=job.name, schema=schema, splits=labels, items=items)
    all_folds = folds.View(job.out, shards, labels, details)
    for view in (*folds.views(all_folds, job.name, job.split.folds), all_folds):
        dataset = writer.write_description(
            view.directory,
            name=job.name,
            schema=schema,
            shards=view.shards,
            splits=view.labels,
            details=view.details,
            card=card.dataset_card(job.name, schema, view.labels, view.details),
            tables=[f"{PRIVATE}/{name}" for name in (patch_table.FILE, duplicates.FILE)] if view is all_folds else (),
        )
    return staged, dataset


def _all_dropped(job: Job, dropped: Mapping[str, int]) -> DiffpathError:
    """Why no split has a field."""
    said = ", ".join(f"{pictures.DROPPED.get(why, why)}: {count}" for why, count in sorted(dropped.items()))
    fix = f"give a --gap_um below {job.split.gap_um:g}, as --gap_um 0, or more tissue, into a new --out"
    return DiffpathError("split", where=job.out, why=f"no field is left for any ({said})", fix=fix)


def _place(job: Job, staged: Staged, staging: Staging) -> tuple[list[SplitAssignment], duplicates.JobDuplicates]:
    """Give every kept field its split, or the reason why it has none; and list duplicates."""
    limits = _limits(job, staged, staging)
    assign = assignment.assignment(
        job.split, [(source, _capped(job, source, each, staging, limits)) for source, each in staged.done]
    )
    assignments = []
    for source, prepared in staged.done:
        kept, origins = source_tasks.kept_origins(job, staging, source, prepared)
        chosen = [limits.keep(field) for field in kept]
        dealt = iter(assign(source, prepared, list(compress(kept, chosen)), list(compress(origins, chosen))))
        assignments.append(
            SplitAssignment(source, prepared.name, [next(dealt) if keep else caps.CAPPED for keep in chosen])
        )
    repeated = duplicates.find(staging, assignments, job.split.names)
    duplicates.write_table(job, staging, staged.done, repeated)
    return (duplicates.drop(assignments, repeated) if job.duplicates == "drop" else assignments), repeated


def _list(
    job: Job, staged: Staged, staging: Staging, assignments: Sequence[SplitAssignment]
) -> tuple[dict[str, list[int]], str]:
    """Give every kept field a row in the patch table.

    Returns:
        The labels of each split's fields, and the proof of the split.
    """
    labels: dict[str, list[int]] = {split: [] for split in job.split.names}
    pairs = set[tuple[str, str]]()
    with patch_table.writer(job) as write_rows:
        for (source, prepared), assignment_of_source in zip(staged.done, assignments, strict=True):
            kept, origins = source_tasks.kept_origins(job, staging, source, prepared)
            write_rows(origins, prepared, kept, assignment_of_source.assigned)
            for field, origin, split in zip(kept, origins, assignment_of_source.assigned, strict=True):
                if split in labels:
                    labels[split].append(job.class_map.names.index(field.label))
                    pairs.add((origin.owner, split))
    return labels, assignment.proof(job.split, staged.done, pairs, block_um=job.block_um)


def _limits(job: Job, staged: Staged, staging: Staging) -> caps.Limits:
    """The cap of each class over all sources. What it drops depends on which sources there are, and on no more."""
    limits = caps.Limits(job.caps.per_class)
    if job.caps.per_class is not None:
        for _, prepared in staged.done:
            limits.add(StagedSource.of_unit(staging.describe(prepared.name)).kept)
    return limits


def _capped(job: Job, source: Source, prepared: Prepared, staging: Staging, limits: caps.Limits) -> Prepared:
    """A source with the counts that the cap of its classes leaves."""
    if job.caps.per_class is None:
        return prepared
    kept, origins = source_tasks.kept_origins(job, staging, source, prepared)
    chosen = [limits.keep(field) for field in kept]
    return replace(prepared, kept=source_tasks.count_owners(compress(origins, chosen), compress(kept, chosen)))


def _records(staging: Staging, assignments: Sequence[SplitAssignment], split: str) -> Iterator[bytes]:
    """Staged records of one split, in the order of the sources."""
    for slide in assignments:
        if split in slide.assigned:
            stored = staging.read(Unit(slide.name, len(slide.assigned), {}))
            yield from (data for data, where in zip(stored, slide.assigned, strict=True) if where == split)


def _draw_all(job: Job, assignments: Sequence[SplitAssignment], scheduler: Scheduler) -> list[DiffpathError]:
    """Draw all pictures, and remove those of sources that are no longer part of the job."""
    pictures.keep_only(job.out / pictures.FOLDER, [source.name for source in assignments])
    failed: dict[int, DiffpathError] = {}
    _, draw = source_tasks.tasks(job)
    with track("overlays", total=len(assignments), unit="pictures") as progress:
        for outcome in scheduler(draw, assignments):
            error = _as_failure(assignments[outcome.index].source, outcome)
            if isinstance(error, DiffpathError):
                failed[outcome.index] = error
            elif error is not None:
                raise error
            progress.advance(1)
    return [failed[index] for index in sorted(failed)]


def _describe(job: Job, staged: Staged, proof: str, dropped: Mapping[str, int], duplicates: DuplicateCounts) -> Details:
    """Provenance, for the manifest.

    Args:
        job: the job.
        staged: what became of its sources.
        proof: of the split.
        dropped: how many of the kept fields have no split, and why.
        duplicates: how many images are there twice.
    """
    outcomes = _count_outcomes(staged)
    if over := dropped.get(caps.CAPPED):
        outcomes += Counter({caps.OVER_CLASS: over})
        outcomes[tiling.KEPT] -= over
    return Details(
        kind=marking.GENERATED if job.generated else "real",
        mpp=job.fields.mpp,
        fov_um=job.fields.fov_um,
        job={**job.settings(), "sources": staged.identities()},
        command="diffpath prep",
        split_proof=proof,
        split_by=assignment.split_by(job.split, staged.done),
        outcomes={
            **dict(sorted(outcomes.items())),
            **{pictures.DROPPED[why]: count for why, count in sorted(dropped.items()) if why in pictures.DROPPED},
        },
        duplicates=duplicates,
        annotations=tuple(card.annotation_notes([prepared.annotations for _, prepared in staged.done])),
        scales=tuple(replace(prepared.scale, slide=prepared.identity.slide) for _, prepared in staged.done),
        failed=len(staged.failed),
        versions=writer.versions("openslide-python", "openslide-bin", "shapely", "opencv-python-headless"),
    )
