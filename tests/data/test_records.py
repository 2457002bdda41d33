"""Records, manifests, and the damage they must notice."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from diffpath_jax.data import manifest, records, writer
from diffpath_jax.data.details import Details
from diffpath_jax.data.staging import JOB, STAGING, Staging
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.sealed import SEAL

SCHEMA = records.Schema((4, 6), ("a", "b"))


def record(index, seed=0):
    image = np.random.default_rng([seed, index]).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return records.PatchRecord(image, index % 2, "slide", "patient", 0.5, 3.0, index)


def write(out, count=5, name="toy"):
    labels = [index % 2 for index in range(count)]
    return writer.write_dataset(
        out,
        name=name,
        schema=SCHEMA,
        splits={"train": labels, "val": []},
        items={"train": (records.encode(record(i)) for i in range(count)), "val": []},
        details=Details("real", mpp=0.5, fov_um=3.0),
        card="# toy\n",
    )


def test_a_record_comes_back_whole():
    before = record(7)
    after = records.decode(records.encode(before), SCHEMA)
    np.testing.assert_array_equal(after.image, before.image)
    assert {k: v for k, v in after.__dict__.items() if k != "image"} == {
        k: v for k, v in before.__dict__.items() if k != "image"
    }


def test_the_same_record_gives_the_same_bytes():
    assert records.encode(record(3)) == records.encode(record(3))


def test_dataset_round_trip(tmp_path):
    dataset = write(tmp_path)
    assert list(dataset.splits) == ["train"]
    assert dataset.class_counts == {"train": {"a": 3, "b": 2}}
    assert [r.index for r in dataset.read("train")] == [0, 1, 2, 3, 4]


def test_digest_says_what_is_held_and_not_where(tmp_path):
    first, second, other = write(tmp_path / "x"), write(tmp_path / "y"), write(tmp_path / "z", count=4)
    assert first.digest == second.digest != other.digest


def test_several_shards_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "MAX_SHARD_BYTES", 2 * 4 * 6 * 3)
    dataset = write(tmp_path, count=7)
    assert [shard.count for shard in dataset.splits["train"]] == [2, 2, 2, 1]
    assert [r.index for r in dataset.read("train")] == list(range(7))


def test_tfds_reads_it_without_tensorflow(tmp_path):
    write(tmp_path)
    code = f"""
import sys
import tensorflow_datasets as tfds
source = tfds.builder_from_directory({str(tmp_path)!r}).as_data_source("train")
assert len(source) == 5 and source[1]["label"] == 1 and source[4]["image"].shape == (4, 6, 3)
print(source[2]["image"].tolist())
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == record(2).image.tolist()


@pytest.mark.parametrize("damage", ["flip", "truncate", "zero", "remove"])
def test_a_damaged_shard_is_named_before_use(tmp_path, damage):
    dataset = write(tmp_path, count=50)
    path = dataset.paths("train")[0]
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "truncate":
        data = data[: len(data) // 2]
    elif damage == "zero":
        data[100:200] = bytes(100)
    path.write_bytes(data)
    if damage == "remove":
        path.unlink()
    with pytest.raises(DiffpathError, match=path.name) as caught:
        manifest.open_dataset(tmp_path)
    assert caught.value.code == ExitCode.DAMAGED


def test_a_truncated_shard_is_not_an_empty_one(tmp_path):
    path = write(tmp_path, count=50).paths("train")[0]
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DiffpathError, match=path.name):
        list(manifest.read_shard(path))


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("splits"),
        lambda content: content.update(format="other"),
        lambda content: content["splits"]["train"][0].update(count="5", sha256="0" * 64),
        lambda content: content["splits"]["train"][0].update(file="../escape"),
        lambda content: content.update(classes=["a", "b", "c"]),
    ],
)
def test_a_changed_manifest_is_refused(tmp_path, change):
    write(tmp_path)
    path = tmp_path / manifest.MANIFEST
    content = json.loads(path.read_text())
    # As a file of an earlier version, whose digest covers the shards alone.
    del content[SEAL]
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DiffpathError) as caught:
        manifest.open_dataset(tmp_path)
    assert caught.value.code == ExitCode.DAMAGED


def test_no_dataset_there(tmp_path):
    with pytest.raises(DiffpathError, match="no such directory"):
        manifest.open_dataset(tmp_path / "nowhere")
    with pytest.raises(DiffpathError, match="manifest"):
        manifest.open_dataset(tmp_path)


def test_a_failed_write_leaves_no_file(tmp_path):
    def items():
        yield b"first"
        raise OSError("disk full")

    with pytest.raises(DiffpathError, match="disk full"):
        writer.write_shard(tmp_path / "x.array_record", items())
    assert list(tmp_path.iterdir()) == []


def test_staging_notices_changed_units_and_other_jobs(tmp_path):
    staging = Staging(tmp_path, {"seed": 1})
    staging.commit("unit", [b"one", b"two"], {"n": 2})
    again = Staging(tmp_path, {"seed": 1})
    assert list(again.read(again.find("unit"))) == [b"one", b"two"]
    with pytest.raises(DiffpathError, match="seed") as caught:
        Staging(tmp_path, {"seed": 2})
    assert caught.value.code == ExitCode.REFUSED
    shutil.copy(__file__, tmp_path / STAGING / "unit.array_record")
    assert again.find("unit") is None


def test_units_without_the_record_of_their_job_are_taken_by_none(tmp_path):
    """They may be of other settings; beside a finished data set they are what a killed job left."""
    Staging(tmp_path, {"seed": 1}).commit("unit", [b"one"], {})
    (tmp_path / STAGING / JOB).unlink()
    with pytest.raises(DiffpathError, match="no record of their job") as caught:
        Staging(tmp_path, {"seed": 2})
    assert caught.value.code == ExitCode.DAMAGED
    (tmp_path / manifest.MANIFEST).write_text("{}")
    assert Staging(tmp_path, {"seed": 2}).find("unit") is None
