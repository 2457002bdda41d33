"""The images that training is watched on: where they come from, whose they are, and how far they can be trusted."""

import json

import numpy as np
import pytest

from diffpath_jax.data import details, records, validation, writer
from diffpath_jax.data.details import Details
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.io.errors import DiffpathError, ExitCode

SCHEMA = records.Schema((4, 4), ("a", "b"))


def write(out, patients, *, training_data=None, schema=SCHEMA, **about):
    """A data set with an image of each of some patients, by split."""
    rng = np.random.default_rng(len(out.name))
    items = {
        split: [
            records.encode(
                records.PatchRecord(
                    image=rng.integers(0, 256, (*schema.image_px, 3), np.uint8),
                    label=0,
                    slide="s",
                    patient=patient,
                    mpp=0.5,
                    fov_um=2.0,
                    index=index,
                )
            )
            for index, patient in enumerate(names)
        ]
        for split, names in patients.items()
    }
    kind = "real" if training_data is None else "generated"
    return writer.write_dataset(
        out,
        name="x",
        schema=schema,
        splits={split: [0] * len(names) for split, names in patients.items()},
        items=items,
        details=Details(kind=kind, mpp=0.5, fov_um=2.0, training_data=training_data, **about),
        card="",
    )


def opened(out, patients, **about):
    write(out, patients, **about)
    return open_dataset(out)


@pytest.fixture
def real(tmp_path):
    return opened(tmp_path / "real", {"train": ["p1", "p2"], "val": ["p3"]}, split_by="patient")


@pytest.fixture
def generated(tmp_path, real):
    return opened(tmp_path / "generated", {"train": ["", ""]}, training_data=(real.digest,))


def test_without_a_name_the_first_data_set_is_watched(real, generated):
    assert validation.open_validation("", [generated, real]) is generated
    assert validation.open_validation(str(real.directory), [generated, real]) is real


def test_generated_images_borrow_the_split_of_real_ones(real, generated):
    watched = validation.open_validation(str(real.directory), [generated])
    assert watched.digest == real.digest
    assert not list(validation.doubts(watched, [generated]))


def test_validation_patients_in_training_images_are_refused(tmp_path, real, generated):
    other = opened(tmp_path / "other", {"train": ["p2"], "val": ["p1", "p4"]}, split_by="patient")
    for trained_on in (real, generated):
        with pytest.raises(DiffpathError, match=r"1 patients of its val split are trained on .*\(p1, ...\)") as caught:
            validation.open_validation(str(other.directory), [trained_on, *([real] if trained_on is generated else [])])
        assert caught.value.code == ExitCode.REFUSED


def test_what_is_behind_generated_images_is_not_known_where_their_data_is_not_at_hand(tmp_path, generated):
    other = opened(tmp_path / "other", {"train": ["p8"], "val": ["p9"]}, split_by="patient")
    assert validation.open_validation(str(other.directory), [generated]).digest == other.digest
    (doubt,) = validation.doubts(other, [generated])
    assert "is not known" in doubt


@pytest.mark.parametrize(
    ("name", "patients", "why"),
    [
        ("test_only", {"train": ["p1"], "test": ["p5"]}, "it has no val split; fix: .* its splits are train, test"),
        ("large", {"train": ["p1"], "val": ["p5"]}, "are not those of"),
    ],
)
def test_what_cannot_be_watched(tmp_path, real, name, patients, why):
    schema = records.Schema((8, 8), ("a", "b")) if name == "large" else SCHEMA
    write(tmp_path / name, patients, schema=schema)
    with pytest.raises(DiffpathError, match=f"key 'data.val' in .*{name}: .*{why}"):
        validation.open_validation(str(tmp_path / name), [real])


def test_nothing_there(tmp_path, real):
    with pytest.raises(DiffpathError, match="no such directory"):
        validation.open_validation(str(tmp_path / "nowhere"), [real])


@pytest.mark.parametrize(
    ("split_by", "why"), [("place", "parts of the same slide"), ("image", "patients are unknown"), ("patient", "")]
)
def test_splits_that_share_slides_flatter(tmp_path, split_by, why):
    same = opened(tmp_path / "same", {"train": ["p1"], "val": ["p1"]}, split_by=split_by)
    for split in ("val", "test"):
        assert why in validation.optimism(same, split) and bool(validation.optimism(same, split)) == bool(why)
    assert validation.optimism(same, "train") == ""
    assert bool(list(validation.doubts(same, [same]))) == bool(why)


def test_a_split_by_place_is_said_and_not_refused(tmp_path):
    same = opened(tmp_path / "same", {"train": ["p1"], "val": ["p1"]}, split_by="place")
    drawn = opened(tmp_path / "drawn", {"train": [""]}, training_data=(same.digest,))
    assert validation.open_validation(str(same.directory), [drawn]).digest == same.digest
    (doubt,) = validation.doubts(same, [drawn])
    assert "optimistic" in doubt
    # Of a data set that has nothing to do with it, its validation images are those of new patients.
    alien = opened(tmp_path / "alien", {"train": ["p7"]}, split_by="patient")
    assert not list(validation.doubts(validation.open_validation(str(same.directory), [alien]), [alien]))


def test_no_validation_split_is_said(tmp_path):
    bare = opened(tmp_path / "bare", {"train": ["p1"]})
    (doubt,) = validation.doubts(bare, [bare])
    assert "no val split" in doubt and "data.val" in doubt


@pytest.mark.parametrize(
    ("proof", "split_by"),
    [
        (
            "one patient: split by place, in bands 16 um apart; train, val and test are the same patient, so ...",
            "place",
        ),
        ("90 images whose patients are unknown: images of one patient may be in two splits, this leakage", "image"),
        ("9 patients: 7 in train, 1 in val, 1 in test; none in two splits; here train is fold1", "patient"),
        (None, None),
    ],
)
def test_manifests_of_earlier_versions_say_it_in_their_proof(proof, split_by):
    content = {"kind": "real", "mpp": 0.5, "fov_um": 2.0, **({"split_proof": proof} if proof else {})}
    assert details.from_json(content).split_by == split_by


def test_a_prepared_data_set_says_what_its_splits_keep_apart(dataset):
    stored = json.loads((dataset / "manifest.json").read_text())["details"]
    assert stored["split_by"] == "place"
    assert open_dataset(dataset).details.split_by == "place"
