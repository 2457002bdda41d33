"""A preprocessing job: slides and annotations in, one dataset directory out. One slide is one unit of work."""

import argparse
import hashlib
import hmac
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep import annotations, card, qa, shards, slides, splits, tiling, tissue
from diffpath_jax.data import manifest, records
from diffpath_jax.errors import DiffpathError, ExitCode
from diffpath_jax.files import new_directory_or_nothing, own_directory, replace_file, sha256_file, sha256_json
from diffpath_jax.progress import console, track

SLIDE_SUFFIXES = frozenset(".svs .tif .tiff .ndpi .mrxs .scn .vms .vmu .bif .svslide .dcm .czi".split())
PRIVATE = "private"
KEY_FILE = "hash.key"
PATCH_TABLE = "patches.parquet"


@dataclass(frozen=True)
class Source:
    """One slide to prepare.

    Attributes:
        slide: its file.
        regions: its annotation file, if it has one.
        label: annotation class of the whole slide, for a slide without an annotation file.
        patient: whose it is.
        digest: SHA-256 of the slide file.
        regions_digest: SHA-256 of the annotation file, or of the label.
    """

    slide: Path
    regions: Path | None
    label: str | None
    patient: str
    digest: str
    regions_digest: str


@dataclass(frozen=True)
class Job:
    """A whole preprocessing job, checked and ready to run.

    Attributes:
        out: dataset directory.
        name: dataset name.
        sources: the slides.
        class_map: annotation classes.
        fields: size and grid of the fields of view.
        split: shares of train, val and test.
        scale_table: um/px by slide name, for slides that do not state it.
        key: secret for the hashes that stand for slide and patient in the records.
    """

    out: Path
    name: str
    sources: tuple[Source, ...]
    class_map: annotations.ClassMap
    fields: tiling.FieldSpec
    split: splits.SplitSpec
    scale_table: dict[str, float]
    key: bytes

    def fingerprint(self) -> dict[str, Any]:
        """Everything that decides what the records are; a rerun must match it. No path, no name of a slide."""
        return {
            "name": self.name,
            "sources": sorted([self.hashed(s.digest), self.hashed(s.patient), s.regions_digest] for s in self.sources),
            "classes": {**self.class_map.classes, **dict.fromkeys(sorted(self.class_map.ignore), "")},
            "overlap": self.class_map.overlap,
            "fields": asdict(self.fields),
            "split": {**asdict(self.split), "fractions": list(self.split.fractions)},
            "mpp_table": sorted(self.scale_table.values()),
        }

    def hashed(self, text: str) -> str:
        """Keyed hash (HMAC-SHA256, 16 hex digits): tells slides and patients apart and names none."""
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()[:16]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``diffpath prep``."""
    parser.add_argument("--slides", required=True, type=Path, help="a slide, or a folder of slides")
    parser.add_argument(
        "--annotations",
        type=Path,
        help="QuPath GeoJSON, ASAP XML or ImageScope XML: one file, or a folder of SLIDE.geojson, .json or .xml",
    )
    parser.add_argument(
        "--slide_labels", type=Path, help="CSV with the columns slide,class: for slides without an annotation file"
    )
    parser.add_argument(
        "--classes", type=Path, help="class map (JSON): used and ignored classes, overlaps (default: use all)"
    )
    parser.add_argument("--out", required=True, type=Path, help="dataset directory to write")
    parser.add_argument("--name", default="patches", help="dataset name (default: %(default)s)")
    parser.add_argument("--patients", type=Path, help="CSV with the columns slide,patient")
    parser.add_argument("--mpp_csv", type=Path, help="CSV with the columns slide,mpp: um per level-0 pixel")
    parser.add_argument("--fov_um", type=float, help="side of a field of view in um")
    parser.add_argument("--patch_px", type=int, help="side of the stored image in px")
    parser.add_argument("--mpp", type=float, help="um per px of the stored image")
    parser.add_argument("--stride_um", type=float, help="step of the grid in um (default: the field of view)")
    parser.add_argument("--roi_min", type=float, default=0.75, help="least share of a field in its class's regions")
    parser.add_argument("--tissue_min", type=float, default=0.5, help="least share of tissue in a field")
    parser.add_argument("--fractions", default="0.7,0.1,0.2", help="shares of train, val, test")
    parser.add_argument("--gap_um", type=float, help="gap of a spatial split in um (default: the field of view)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the split")
    parser.add_argument("--key_file", type=Path, help="secret for slide and patient hashes (default: made once)")


def main(arguments: argparse.Namespace) -> ExitCode:
    """Run ``diffpath prep``.

    Returns:
        ``OK``, or ``PARTIAL`` when some slides failed and the others are done.

    Raises:
        DiffpathError: bad input; nothing is left behind.
    """
    out = arguments.out
    with new_directory_or_nothing(out):
        settings = _check(arguments)
        with own_directory(out):
            job = Job(**settings, key=_secret(arguments.key_file, out))
            return run(job)


def _check(arguments: argparse.Namespace) -> dict[str, Any]:
    """Read and check everything but the slides themselves."""
    fields = tiling.field_spec(
        fov_um=arguments.fov_um,
        patch_px=arguments.patch_px,
        mpp=arguments.mpp,
        stride_um=arguments.stride_um,
        roi_min=arguments.roi_min,
        tissue_min=arguments.tissue_min,
    )
    sources = find_sources(
        arguments.slides, arguments.annotations, patients=arguments.patients, slide_labels=arguments.slide_labels
    )
    try:
        fractions = [float(text) for text in arguments.fractions.split(",")]
    except ValueError:
        fractions = []
    if not arguments.name.replace("_", "").isalnum():
        raise DiffpathError("--name", where="the command line", why="letters, digits and _ only", fix="rename it")
    return {
        "out": arguments.out,
        "name": arguments.name,
        "class_map": (
            annotations.read_class_map(arguments.classes)
            if arguments.classes
            else annotations.all_classes(
                [source.regions for source in sources if source.regions],
                slide_labels=[source.label for source in sources if source.label],
            )
        ),
        "fields": fields,
        "split": splits.SplitSpec(
            fractions=splits.check_fractions(fractions),
            gap_um=fields.fov_um if arguments.gap_um is None else arguments.gap_um,
            seed=arguments.seed,
        ),
        "scale_table": slides.read_scale_table(arguments.mpp_csv) if arguments.mpp_csv else {},
        "sources": sources,
    }


def find_sources(
    slide_path: Path, annotation_path: Path | None, *, patients: Path | None, slide_labels: Path | None
) -> tuple[Source, ...]:
    """Pair slides with annotations or labels, and with patients.

    Raises:
        DiffpathError: no slide, a slide without annotations and label, or several slides without a patient table.
    """
    if slide_path.is_dir():
        found = sorted(p for p in slide_path.iterdir() if p.suffix.lower() in SLIDE_SUFFIXES)
    else:
        found = [slide_path] if slide_path.is_file() else []
    if not found:
        why = "no slide in it" if slide_path.is_dir() else "no such file or directory"
        raise DiffpathError("slides", where=slide_path, why=why, fix="check the path given to --slides")
    table = slides.read_table(patients, columns=("slide", "patient")) if patients else {}
    if len(found) > 1 and not patients:
        raise DiffpathError(
            "patients",
            where="the command line",
            why=f"{len(found)} slides and no table that says whose they are",
            fix="give a CSV with the columns slide,patient as --patients",
        )
    labels = slides.read_table(slide_labels, columns=("slide", "class")) if slide_labels else {}
    sources = []
    for slide, (regions, label) in zip(found, _find_regions(found, annotation_path, labels), strict=True):
        patient = table.get(slide.name, table.get(slide.stem))
        if patients and patient is None:
            raise DiffpathError("patient", where=patients, why=f"no row for {slide.name}", fix="add the row")
        digests = sha256_file(slide), sha256_file(regions) if regions else sha256_json({"label": label})
        sources.append(Source(slide, regions, label, patient or slide.stem, *digests))
    return tuple(sources)


def _find_regions(
    found: Sequence[Path], annotation_path: Path | None, labels: Mapping[str, str]
) -> Iterator[tuple[Path | None, str | None]]:
    """For each slide its annotation file, or else its label."""
    if annotation_path is None and not labels:
        fix = "give --annotations, or --slide_labels with the columns slide,class"
        raise DiffpathError("annotations", where="the command line", why="neither regions nor labels", fix=fix)
    if annotation_path and not annotation_path.exists():
        fix = "check the path given to --annotations"
        raise DiffpathError("annotations", where=annotation_path, why="no such file or directory", fix=fix)
    if annotation_path and len(found) > 1 and not annotation_path.is_dir():
        raise DiffpathError(
            "annotations",
            where=annotation_path,
            why=f"one file for {len(found)} slides",
            fix="give a folder with one SLIDE.geojson a slide",
        )
    for slide in found:
        folder = annotation_path if annotation_path and annotation_path.is_dir() else None
        regions = annotations.find_file(folder, slide) if folder else annotation_path
        label = labels.get(slide.name, labels.get(slide.stem))
        if regions is None and label is None:
            raise DiffpathError(
                "annotations",
                where=folder or "the table of --slide_labels",
                why=f"nothing for {slide.name}",
                fix=f"add {slide.stem}{annotations.SUFFIXES[0]}, or a row for it to the table of --slide_labels",
            )
        yield regions, None if regions else label


def _secret(path: Path | None, out: Path) -> bytes:
    """The hash key: the user's own file, or one made once and kept in the dataset's private folder."""
    own = out / PRIVATE / KEY_FILE
    if path is None and not own.exists():
        with replace_file(own) as temporary:
            temporary.touch(mode=0o600)
            temporary.write_text(secrets.token_hex(32))
    try:
        return (path or own).read_bytes().strip()
    except OSError as error:
        raise DiffpathError(
            "hash key", where=path or own, why=f"cannot be read ({error.strerror})", fix="check --key_file"
        ) from error


def run(job: Job) -> ExitCode:
    """Prepare every slide that is not done yet, then split and write the dataset."""
    fingerprint = job.fingerprint()
    if shards.finished(job.out, fingerprint):
        console.print(f"{job.out} is complete: nothing to do")
        return ExitCode.OK
    staging = shards.Staging(job.out, fingerprint)
    units: list[tuple[Source, shards.Unit]] = []
    failed: dict[str, DiffpathError] = {}
    start = time.monotonic()
    with track("prep", total=len(job.sources), unit="slides") as progress:
        for source in job.sources:
            try:
                name = job.hashed(source.digest)
                unit = staging.find(name) or _prepare_slide(job, source, staging)
                units.append((source, unit))
            except DiffpathError as error:
                failed[source.slide.name] = error
            fields = sum(unit.count for _, unit in units)
            progress.advance(1, f"{fields} fields, {fields / (time.monotonic() - start):.0f} fields/s")
    if not units or sum(unit.count for _, unit in units) == 0:
        staging.clear()
        # No record depends on the key yet: leave nothing behind.
        shutil.rmtree(job.out / PRIVATE, ignore_errors=True)
        raise next(iter(failed.values()), None) or DiffpathError(
            "fields of view",
            where=job.sources[0].slide,
            why="none passed the annotation and tissue filters",
            fix="lower --roi_min or --tissue_min, or annotate larger regions",
        )
    dataset = _assemble(job, fingerprint, staging, units, failed)
    staging.clear()
    console.print(card.summary(dataset), soft_wrap=True)
    for failure in failed.values():
        console.print(f"error: {failure}", markup=False, soft_wrap=True)
    return ExitCode.PARTIAL if failed else ExitCode.OK


def _prepare_slide(job: Job, source: Source, staging: shards.Staging) -> shards.Unit:
    """Plan and read the fields of one slide, and stage them."""
    slide = slides.open_slide(source.slide, scale_table=job.scale_table)
    found = annotations.of_slide(slide, source.regions, source.label, job.class_map)
    mask, priority = tissue.find_tissue(slide), job.class_map.priority
    fields = tiling.plan_fields(slide, found.regions, mask, job.fields, priority=priority)
    kept = [field for field in fields if field.outcome == tiling.KEPT]
    slide_key, patient_key = job.hashed(source.digest), job.hashed(source.patient)

    def read() -> Iterator[bytes]:
        images = slides.read_fields(slide, [field.box for field in kept], patch_px=job.fields.patch_px)
        for index, (field, image) in enumerate(zip(kept, images, strict=True)):
            yield records.encode(
                records.PatchRecord(
                    image=image,
                    label=job.class_map.names.index(field.label),
                    slide=slide_key,
                    patient=patient_key,
                    mpp=job.fields.mpp,
                    fov_um=job.fields.fov_um,
                    index=index,
                )
            )

    details = {
        "slide": slide_key,
        "patient": patient_key,
        "scale": asdict(slide.scale),
        "annotations": {"ignored": dict(found.ignored), "outside_share": found.outside_share},
        "fields": [asdict(field) for field in fields],
    }
    return staging.commit(slide_key, read(), details)


def _assemble(
    job: Job,
    fingerprint: dict[str, Any],
    staging: shards.Staging,
    units: Sequence[tuple[Source, shards.Unit]],
    failed: dict[str, DiffpathError],
) -> manifest.Dataset:
    """Split the fields of all slides, then write shards, patch table, overlays, card and manifest."""
    fields = [[_field(content) for content in unit.details["fields"]] for _, unit in units]
    kept = [[field for field in found if field.outcome == tiling.KEPT] for found in fields]
    assigned, proof = _assign(job, [unit for _, unit in units], kept)
    labels = {
        split: [job.class_map.names.index(f.label) for f, s in _pairs(kept, assigned) if s == split]
        for split in splits.SPLITS
    }

    def items(split: str) -> Iterator[bytes]:
        for (_, unit), where in zip(units, assigned, strict=True):
            yield from (data for data, s in zip(staging.read(unit), where, strict=True) if s == split)

    outcomes = Counter(field.outcome for found in fields for field in found)
    in_gap = sum(where.count(splits.GAP) for where in assigned)
    schema = records.Schema((job.fields.patch_px, job.fields.patch_px), job.class_map.names)
    details = {
        "kind": "real",
        "mpp": job.fields.mpp,
        "fov_um": job.fields.fov_um,
        "job": fingerprint,
        "command": "diffpath prep",
        "split_proof": proof,
        "outcomes": {**dict(sorted(outcomes.items())), "dropped in the gap": in_gap},
        "annotations": card.annotation_notes([unit.details["annotations"] for _, unit in units], fields),
        "scales": [unit.details["scale"] for _, unit in units],
        "failed": len(failed),
        "versions": shards.versions("openslide-python", "openslide-bin", "shapely", "opencv-python-headless"),
    }
    _write_patch_table(job, units, kept, assigned)
    for (source, unit), found, where in zip(units, fields, assigned, strict=True):
        slide = slides.open_slide(source.slide, scale_table=job.scale_table)
        regions = annotations.of_slide(slide, source.regions, source.label, job.class_map).regions
        qa.draw_overlay(job.out / "qa" / f"{unit.name}.png", slide, regions, found, where, job.class_map.names)
    return shards.write_dataset(
        job.out,
        name=job.name,
        schema=schema,
        splits=labels,
        items={split: items(split) for split in splits.SPLITS},
        details=details,
        card=card.dataset_card(job.name, schema, labels, details),
    )


def _field(content: dict[str, Any]) -> tiling.Field:
    return tiling.Field(**{**content, "box": slides.Box(**content["box"])})


def _pairs(
    kept: Sequence[Sequence[tiling.Field]], assigned: Sequence[Sequence[str]]
) -> Iterator[tuple[tiling.Field, str]]:
    for found, where in zip(kept, assigned, strict=True):
        yield from zip(found, where, strict=True)


def _assign(
    job: Job, units: Sequence[shards.Unit], kept: Sequence[Sequence[tiling.Field]]
) -> tuple[list[list[str]], str]:
    """The split of every kept field, by patient or (one patient) by place, and one line that proves it."""
    patients = [unit.details["patient"] for unit in units]
    if len(set(patients)) == 1:
        assigned = [
            splits.split_by_place(
                [field.box for field in found],
                [field.label for field in found],
                fractions=job.split.fractions,
                gap_px=job.split.gap_um / unit.details["scale"]["x"],
            )
            for unit, found in zip(units, kept, strict=True)
        ]
        proof = (
            f"one patient: split by place, in bands {job.split.gap_um:g} um apart; train, val and test are the same "
            "patient, so no number here says how well anything carries over to another patient"
        )
        return assigned, proof
    counts: dict[str, Counter[str]] = {}
    for patient, found in zip(patients, kept, strict=True):
        counts.setdefault(patient, Counter()).update(field.label for field in found)
    where = splits.split_patients(counts, job.split)
    proof = splits.prove_disjoint(patients, [where[patient] for patient in patients])
    return [[where[p]] * len(found) for p, found in zip(patients, kept, strict=True)], proof


def _write_patch_table(
    job: Job,
    units: Sequence[tuple[Source, shards.Unit]],
    kept: Sequence[Sequence[tiling.Field]],
    assigned: Sequence[Sequence[str]],
) -> None:
    """Where every patch came from. Names the slide and the patient: for the group's own eyes."""
    rows = [
        {
            "slide_file": source.slide.name,
            "patient": source.patient,
            "slide": unit.details["slide"],
            "index": index,
            "split": split,
            "class": field.label,
            **{f"{key}_px0": value for key, value in asdict(field.box).items()},
            "mpp": job.fields.mpp,
            "slide_mpp_source": unit.details["scale"]["source"],
            "fov_um": job.fields.fov_um,
            "roi_share": field.roi_share,
            "tissue_share": field.tissue_share,
        }
        for (source, unit), found, where in zip(units, kept, assigned, strict=True)
        for index, (field, split) in enumerate(zip(found, where, strict=True))
    ]
    with replace_file(job.out / PRIVATE / PATCH_TABLE) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)
