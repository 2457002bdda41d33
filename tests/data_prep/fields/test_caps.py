"""Caps are random samples that depend on seed, slide and place, and on nothing else."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep.fields import caps, quality, tiling
from data_prep.slide.slides import Box
from diffpath_jax import cli
from diffpath_jax.data import manifest, records
from diffpath_jax.io.errors import DiffpathError
from tests.data_prep.job.test_scheduling import blank_overlays, write_slides  # noqa: F401

IMAGE = np.zeros((1, 1, 3), np.uint8)
pytestmark = pytest.mark.usefixtures("blank_overlays")


def fields(count, label="a", outcome=tiling.KEPT):
    return [
        tiling.Field(Box(i % 50 + 0.0, i // 50 + 0.0, 1.0, 1.0), label, outcome, 1.0, 0.0, 1.0) for i in range(count)
    ]


def kept(found):
    return {(f.label, f.box.x, f.box.y) for f in found if f.outcome == tiling.KEPT}


def within(found, per_slide=None, per_class=None, seed=0, slide="digest", rejected=lambda field: False, read=None):
    """Fields as they are drawn, where some are rejected for their images; ``read`` gets those that are read."""

    def judge(chosen):
        for field in chosen:
            if read is not None:
                read.append(field)
            yield (replace(field, label="", outcome=quality.BLURRED) if rejected(field) else field), IMAGE

    numbered = caps.numbered(found, seed=seed, slide=slide)
    return [field for field, _ in caps.draw(numbered, caps.CapSpec(per_slide, per_class), judge)]


def test_each_class_of_a_slide_has_its_cap_and_the_rest_its_reason():
    found = within([*fields(300), *fields(20, "b"), *fields(7, "", tiling.NO_TISSUE)], per_slide=50)
    assert Counter(f.label for f in found if f.outcome == tiling.KEPT) == {"a": 50, "b": 20}
    assert Counter(f.outcome for f in found) == {tiling.KEPT: 70, caps.OVER_SLIDE: 250, tiling.NO_TISSUE: 7}
    assert all(not f.label for f in found if f.outcome == caps.OVER_SLIDE)


def test_no_slide_keeps_more_of_a_class_than_the_set():
    found = within(fields(300), per_slide=80, per_class=50)
    assert Counter(f.outcome for f in found) == {tiling.KEPT: 50, caps.OVER_CLASS: 250}
    assert kept(found) == kept(within(fields(300), per_class=50))


def test_a_lower_cap_keeps_a_part_and_order_changes_nothing():
    given = fields(300)
    few, more = kept(within(given, per_slide=20)), kept(within(given, per_slide=60))
    assert few < more
    assert kept(within(given[::-1], per_slide=20)) == few
    assert kept(within(given, per_slide=20, seed=1)) != few != kept(within(given, per_slide=20, slide="other"))


def test_a_rejected_field_makes_room_for_the_next():
    """Kept are the lowest numbers among those that pass, and nothing beyond them is read."""
    every, read = fields(300), []
    found = within(every, per_slide=60, rejected=lambda field: field.box.x % 2, read=read)
    passing = sorted((caps.number_of(0, "digest", field.box), field.box) for field in every if not field.box.x % 2)
    assert kept(found) == {("a", box.x, box.y) for _, box in passing[:60]}
    last = passing[59][0]
    assert {field.box for field in read} == {f.box for f in every if caps.number_of(0, "digest", f.box) <= last}
    assert len(read) == len({field.box for field in read})
    # All that pass, if they are fewer.
    assert len(kept(within(every, per_slide=200, rejected=lambda field: field.box.x % 2))) == 150


def test_without_a_cap_fields_are_read_from_top_to_bottom():
    read = []
    within([*fields(300), *fields(20, "b")], read=read)
    assert [f.box for f in read] == sorted((f.box for f in read), key=lambda box: (box.y, box.x)) and len(read) == 320


def test_every_field_is_drawn_equally_often():
    counts = Counter(place for seed in range(400) for place in kept(within(fields(40), per_slide=10, seed=seed)))
    # Each of 40 is drawn 100 times of 400 on average, with a standard deviation of 8.7.
    found = np.array([counts["a", i % 50, i // 50] for i in range(40)])
    assert found.sum() == 4000
    assert np.abs(found - 100).max() < 5 * 8.7


def test_no_cap_keeps_all():
    assert kept(within(fields(300))) == kept(fields(300))
    with pytest.raises(DiffpathError, match=r"--max_per_class in the command line: 0 keeps nothing"):
        caps.check_caps(caps.CapSpec(5, 0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_slides(tmp_path_factory.mktemp("many") / "input", 4)


def prep(folder, out, *more):
    paths = ["--slides", folder / "slides", "--annotations", folder / "regions", "--out", out]
    tables = ["--patients", folder / "patients.csv", "--key_file", folder / "key", "--fractions", "0.5,0,0.5"]
    assert cli.main([str(word) for word in ("prep", *paths, *tables, "--fov_um", 16, "--patch_px", 16, *more)]) == 0
    return manifest.open_dataset(out)


def images(dataset):
    found = (
        records.decode(data, dataset.schema)
        for split in dataset.splits
        for path in dataset.paths(split)
        for data in manifest.read_shard(path)
    )
    return Counter((record.label, record.image.tobytes()) for record in found)


def test_caps_of_the_real_command(folder, tmp_path):
    whole = images(prep(folder, tmp_path / "whole", "--workers", 0))
    # A slide holds 3 x 6 fields of each class, or 18.
    assert Counter(label for label, _ in whole.elements()) == {0: 72, 1: 72}
    dataset = prep(folder, tmp_path / "out", "--workers", 0, "--max_per_slide", 10, "--max_per_class", 25)
    outcomes = dataset.details.outcomes
    assert {name: sum(c[name] for c in dataset.class_counts.values()) for name in dataset.schema.classes} == {
        "pink": 25,
        "purple": 25,
    }
    # 4 slides x 2 classes x 8 over the one cap; of the 80 left 30 over the other.
    assert (outcomes[tiling.KEPT], outcomes[caps.OVER_SLIDE], outcomes[caps.OVER_CLASS]) == (50, 64, 30)
    assert images(dataset) <= whole
    table = pq.read_table(tmp_path / "out" / "private" / "patches.parquet").to_pydict()
    assert Counter(table["split"])[caps.CAPPED] == 30 and len(table["split"]) == 80
    assert "- over the cap of a slide: 64" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.full
def test_neither_workers_nor_names_nor_keys_nor_an_interruption_change_what_is_drawn(folder, tmp_path):
    words = ["--max_per_slide", 10, "--max_per_class", 25]
    expected = images(prep(folder, tmp_path / "one", "--workers", 0, *words))
    assert images(prep(folder, tmp_path / "two", "--workers", 2, *words)) == expected
    other = tmp_path / "renamed"
    (other / "slides").mkdir(parents=True)
    (other / "regions").mkdir()
    for old, new in zip(range(4), (7, 3, 5, 1), strict=True):
        (other / "slides" / f"s{new:02d}.svs").symlink_to(folder / "slides" / f"s{old:02d}.svs")
        (other / "regions" / f"s{new:02d}.geojson").symlink_to(folder / "regions" / f"s{old:02d}.geojson")
    (other / "patients.csv").write_text((folder / "patients.csv").read_text())
    (other / "key").write_text("another secret")
    assert images(prep(other, tmp_path / "three", "--workers", 0, *words)) == expected
    # As an interrupted job: two slides fail at first, and are there when the same command runs again.
    late = [other / "slides" / f"s{number:02d}.svs" for number in (3, 5)]
    targets = [path.readlink() for path in late]
    for path in late:
        path.unlink()
        path.write_bytes(b"not here yet")
    paths = ["prep", "--slides", other / "slides", "--annotations", other / "regions", "--out", tmp_path / "four"]
    tables = ["--patients", other / "patients.csv", "--key_file", other / "key", "--fractions", "0.5,0,0.5"]
    size = ["--fov_um", 16, "--patch_px", 16, "--workers", 0]
    assert cli.main([str(word) for word in [*paths, *tables, *size, *words]]) == 3
    for path, target in zip(late, targets, strict=True):
        path.unlink()
        path.symlink_to(target)
    assert images(prep(other, tmp_path / "four", "--workers", 0, *words)) == expected


def test_another_cap_is_another_job(folder, tmp_path, capsys):
    prep(folder, tmp_path / "out", "--workers", 0, "--max_per_slide", 10)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["details"]["job"]["caps"] == {
        "per_slide": 10,
        "per_class": None,
    }
    capsys.readouterr()
    with pytest.raises(AssertionError):
        prep(folder, tmp_path / "out", "--workers", 0, "--max_per_slide", 11)
    assert "another caps" in capsys.readouterr().err
