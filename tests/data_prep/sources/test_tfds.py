"""TFDS data sets are read as they are, dealt out anew on request, and refused where they cannot be read."""

import io
import shutil

import cv2
import pytest
import tensorflow_datasets as tfds

from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.manifest import open_dataset
from tests.data_prep.sources.conftest import patch, records_of


class Fake(tfds.core.GeneratorBasedBuilder):
    """A public patch data set in small: three splits, the test split with an image without a class."""

    VERSION = tfds.core.Version("1.0.0")
    name = "fake"

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.ClassLabel(names=["Normal", "Tumour"]),
            "id": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, _):
        return {name: self._some(first, 10) for first, name in ((0, "train"), (10, "validation"), (20, "test"))}

    def _some(self, first, count):
        for i in range(first, first + count):
            data = b"no image" if i == 13 else encode_png(patch(i))
            yield i, {"image": io.BytesIO(data), "label": -1 if i == 25 else i % 2, "id": f"x{i}"}

    def _generate_examples(self):
        raise NotImplementedError


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    builder = Fake(data_dir=tmp_path_factory.mktemp("tfds"), file_format="array_record")
    builder.download_and_prepare()
    return builder.data_path


def test_a_tfds_data_set_keeps_its_splits(fake, prep, tmp_path):
    code, errors, shown = prep("--tfds", fake, "--mpp", 0.25, "--patch_px", 16)
    assert code == 3 and len(errors) == 1 and "image in validation[" in errors[0] and "no image" in errors[0]
    dataset, found = records_of(tmp_path / "out")
    assert {split: dataset.count(split) for split in dataset.splits} == {"train": 10, "val": 9, "test": 9}
    assert dataset.details.outcomes == {"kept": 28, "of no class that is used": 1}
    shrunk = {cv2.resize(patch(i), (16, 16), interpolation=cv2.INTER_AREA).tobytes(): i for i in range(30)}
    assert {shrunk[record.image.tobytes()] for record in found} == set(range(30)) - {13, 25}
    assert all(record.label == shrunk[record.image.tobytes()] % 2 for record in found)
    assert {shrunk[record.image.tobytes()] for record in dataset.read("test")} == set(range(20, 30)) - {25}
    assert "leakage cannot be excluded" in shown


def test_a_tfds_data_set_is_dealt_out_anew_on_request(fake, prep, tmp_path):
    assert prep("--tfds", fake, "--mpp", 0.5, "--folds", 4)[0] == 3
    dataset, found = records_of(tmp_path / "out")
    assert len(found) == 28 and set(dataset.splits) == {"fold0", "fold1", "fold2", "fold3"}
    # 14 of each class: 3 or 4 in a fold.
    assert all(set(counts.values()) <= {3, 4} for counts in dataset.class_counts.values())


def test_our_own_data_sets_are_tfds_data_sets(dataset, prep, tmp_path):
    """Pixels and hashed patients of a data set made from slides: one patient, in all splits."""
    before = open_dataset(dataset)
    code, errors, _ = prep("--tfds", dataset, "--mpp", 2.0)
    assert code == 2 and "in test and in train" in errors[0]
    shutil.rmtree(tmp_path / "out")
    code, errors, _ = prep("--tfds", dataset, "--mpp", 2.0, "--fractions", "1,0,0")
    assert code == 0
    after, found = records_of(tmp_path / "out")
    expected = {record.image.tobytes() for split in before.splits for record in before.read(split)}
    assert {record.image.tobytes() for record in found} == expected
    assert len({record.patient for record in found}) == 1 and found[0].patient
    assert after.details.fov_um == before.details.fov_um


def test_tfds_data_sets_that_cannot_be_read(prep, tmp_path, fake, images):
    damaged = shutil.copytree(fake, tmp_path / "damaged")
    for shard in damaged.glob("*.array_record*"):
        shard.write_bytes(shard.read_bytes()[:5000])
    other = shutil.copytree(fake, tmp_path / "other")
    (other / "dataset_info.json").write_text(
        (other / "dataset_info.json").read_text().replace("array_record", "tfrecord")
    )
    for name, said in {
        damaged: "cannot be read",
        other: "which need TensorFlow",
        images: "dataset_info.json",
        "no_such_data_set": "not found",
        "patch_camelyon": "download_and_prepare",
    }.items():
        code, errors, _ = prep("--tfds", name, "--mpp", 0.5)
        assert code in (2, 5) and len(errors) == 1 and said in errors[0], errors
        assert not (tmp_path / "out" / "manifest.json").exists()
    code, errors, _ = prep("--tfds", fake, "--mpp", 0.5, "--patients", "x.csv")
    assert code == 2 and len(errors) == 1
