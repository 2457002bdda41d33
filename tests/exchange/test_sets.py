"""Sets of images leave and come back: each format is read by its own tool, and by ``diffpath`` again."""

import io
import json
import zipfile

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

from diffpath_jax import cli
from diffpath_jax.data import marking, npz_images
from diffpath_jax.data.image_files import encode_png
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.evaluation import image_sets
from diffpath_jax.exchange import parquet_images
from diffpath_jax.io.errors import DiffpathError, ExitCode


@pytest.fixture
def export(tmp_path):
    def run(source, form, name, *words, of="--data"):
        code = cli.main([str(word) for word in ("export", of, source, "--as", form, "--out", tmp_path / name, *words)])
        assert code == 0
        return tmp_path / name

    return run


def prepare(path, out, *words):
    fixed = ["prep", "--images", path, "--out", out, "--mpp", 2, "--workers", 0, *words]
    assert cli.main([str(word) for word in fixed]) == 0
    return open_dataset(out)


def pixels(dataset, splits=None):
    """Images of each class, without an order."""
    found = [record for split in splits or dataset.splits for record in dataset.read(split)]
    return sorted((dataset.schema.classes[record.label], record.image.tobytes()) for record in found)


def test_npz_as_guided_diffusion_reads_it(export, samples, tmp_path):
    path, dataset = export(samples, "npz", "set.npz"), open_dataset(samples)
    with np.load(path) as arrays:
        images, labels = arrays["arr_0"], arrays["arr_1"]
        assert arrays[marking.COLUMN] == marking.SOURCE_TYPE
    assert images.dtype == np.uint8 and images.shape == (24, 16, 16, 3)
    for record, image, label in zip(dataset.read("train"), images, labels, strict=True):
        np.testing.assert_array_equal(image, record.image)
        assert label == record.label
    # The same set gives the same bytes.
    assert export(samples, "npz", "again.npz").read_bytes() == path.read_bytes()
    measured = image_sets.open_set(path, split="train")
    assert (measured.kind, measured.classes, len(measured)) == ("generated", ("pink", "purple"), 24)
    np.testing.assert_array_equal(measured.fetch([3, 20, 1]), images[[3, 20, 1]])
    back = prepare(path, tmp_path / "back")
    assert pixels(back) == pixels(dataset) and back.details.kind == "generated"


@pytest.mark.parametrize("packed", [np.savez, np.savez_compressed])
def test_npz_of_others(tmp_path, packed):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    packed(tmp_path / "a.npz", images, np.array([7, 7, 2, 7, 2]))
    found = npz_images.open_npz(tmp_path / "a.npz")
    assert found.classes == ("2", "7") and found.labels.tolist() == [1, 1, 0, 1, 0] and not found.generated
    np.testing.assert_array_equal(np.stack(list(found.read([4, 0]))), images[[4, 0]])
    packed(tmp_path / "b.npz", images)
    assert image_sets.open_set(tmp_path / "b.npz", split="").classes == ()
    assert cli.main(["prep", "--images", str(tmp_path / "b.npz"), "--out", str(tmp_path / "o"), "--mpp", "1"]) == 2
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "arrays",
    [
        {"arr_0": np.zeros((2, 4, 4, 3), np.float32)},
        {"arr_0": np.zeros((2, 4, 4), np.uint8)},
        {"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "arr_1": np.zeros(3, int)},
        {"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "arr_1": np.zeros(2)},
        {"arr_0": np.zeros((2, 4, 4, 3), np.uint8), "arr_1": np.array([0, 5]), "classes": np.array(["a", "b"])},
    ],
)
def test_npz_that_is_no_set(tmp_path, arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DiffpathError, match="not a set of images") as raised:
        npz_images.open_npz(tmp_path / "a.npz")
    assert raised.value.code == ExitCode.DAMAGED


def test_npz_cut_short(tmp_path, export, samples):
    path = export(samples, "npz", "set.npz")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DiffpathError):
        npz_images.open_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"\x93NUMPY\x01\x00")
    with pytest.raises(DiffpathError, match="not a set of images"):
        npz_images.open_npz(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_folders_of_real_images(export, dataset, tmp_path, suffix):
    folder, real = export(dataset, "folders", "folder", "--image_type", suffix), open_dataset(dataset)
    assert {path.name for path in folder.iterdir()} == set(real.splits)
    assert {path.suffix for path in folder.rglob("*.*")} == {f".{suffix}"}
    back = prepare(folder, tmp_path / "back")
    assert {split: pixels(back, [split]) for split in back.splits} == {
        split: pixels(real, [split]) for split in real.splits
    }
    for path in list(folder.rglob(f"*.{suffix}"))[:3]:
        with PIL.Image.open(path) as file:
            assert not getattr(file, "text", {}) and "270" not in map(str, getattr(file, "tag_v2", {}))
    one = export(dataset, "folders", "test_only", "--split", "test")
    assert {path.name for path in one.iterdir()} == set(real.schema.classes)


def test_folders_of_generated_images_say_so(export, samples):
    for suffix in ("png", "tif"):
        folder = export(samples, "folders", suffix, "--image_type", suffix)
        assert {path.name for path in folder.iterdir()} == {"pink", "purple"}
        for path in folder.rglob(f"*.{suffix}"):
            with PIL.Image.open(path) as file:
                said = file.text[marking.COLUMN] if suffix == "png" else file.tag_v2[270]
                assert marking.SOURCE_TYPE in said


def test_what_says_that_it_is_generated_stays_so(export, samples, dataset, tmp_path, capsys):
    for form in ("folders", "parquet"):
        back = prepare(export(samples, form, form), tmp_path / f"back_{form}")
        assert back.details.kind == "generated" and pixels(back) == pixels(open_dataset(samples))
    assert prepare(export(dataset, "folders", "real", "--split", "test"), tmp_path / "r").details.kind == "real"
    for path in list((tmp_path / "folders" / "pink").iterdir()):
        path.unlink()
    for path in (tmp_path / "real" / "pink").iterdir():
        path.rename(tmp_path / "folders" / "pink" / path.name.replace("_", "-"))
    (tmp_path / "folders" / "pink").rename(tmp_path / "folders" / "mixed")
    words = ["prep", "--images", tmp_path / "folders", "--out", tmp_path / "x", "--mpp", 2, "--workers", 0]
    assert cli.main([str(word) for word in words]) == 2
    assert "say that they are generated, and others do not" in capsys.readouterr().err


def test_parquet_of_the_hugging_face_kind(export, dataset, tmp_path, monkeypatch, capsys):
    real = open_dataset(dataset)
    monkeypatch.setattr(parquet_images, "SHARD_BYTES", 3 * 16 * 16 * 40)
    folder = export(dataset, "parquet", "hub")
    count = real.count("train")
    number = -(-count // 40)
    assert number > 1
    files = [folder / "data" / f"train-{i:05d}-of-{number:05d}.parquet" for i in range(number)]
    tables = [pq.read_table(file) for file in files]
    info = json.loads(tables[0].schema.metadata[b"huggingface"])["info"]
    assert info["features"]["image"] == {"_type": "Image"}
    assert info["features"]["label"] == {"names": list(real.schema.classes), "_type": "ClassLabel"}
    rows = [row for table in tables for row in table.to_pylist()]
    for row, record in zip(rows, real.read("train"), strict=True):
        np.testing.assert_array_equal(np.array(PIL.Image.open(io.BytesIO(row["image"]["bytes"]))), record.image)
        assert (row["label"], row["slide"], row["patient"]) == (record.label, record.slide, record.patient)
        assert row[marking.COLUMN] is None
    head = (folder / "README.md").read_text().split("---\n")[1]
    described = {line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in head.splitlines()}
    sizes = {split["name"]: split["num_examples"] for split in described["dataset_info"]["splits"]}
    assert sizes == {split: real.count(split) for split in real.splits}
    stored = sum(file.stat().st_size for file in (folder / "data").iterdir())
    assert described["dataset_info"]["download_size"] == stored
    # It knows its patients: the only one of this set is in all splits, and that is refused.
    words = ["prep", "--images", folder, "--out", tmp_path / "x", "--mpp", 2, "--workers", 0]
    assert cli.main([str(word) for word in words]) == ExitCode.BAD_INPUT
    assert "patient" in capsys.readouterr().err
    assert cli.main(["export", "--data", str(dataset), "--as", "parquet", "--out", str(folder)]) == ExitCode.REFUSED


def test_parquet_comes_back(export, tmp_path, monkeypatch):
    """With its splits, patients and classes, from files of many row groups."""
    rows = ["image,patient"]
    for number, name in enumerate(("tumour", "normal")):
        for i in range(12):
            path = tmp_path / "images" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = np.random.default_rng([number, i]).integers(0, 256, (8, 8, 3), np.uint8)
            path.write_bytes(encode_png(image))
            rows.append(f"{name}/{i}.png,p{i // 2}")
    (tmp_path / "patients.csv").write_text("\n".join(rows))
    first = prepare(tmp_path / "images", tmp_path / "first", "--patients", tmp_path / "patients.csv")
    monkeypatch.setattr(parquet_images, "ROWS_A_GROUP", 3)
    folder = export(tmp_path / "first", "parquet", "hub")
    second = prepare(folder, tmp_path / "second")
    assert len(first.splits) == 3
    for split in first.splits:
        assert pixels(second, [split]) == pixels(first, [split])
        assert len({record.patient for record in second.read(split)}) == len({r.patient for r in first.read(split)})
    assert "none in two splits" in second.details.split_proof
    file = next((folder / "data").glob("train-*"))
    one = prepare(file, tmp_path / "third", "--fractions", "0.5,0,0.5")
    assert pixels(one) == pixels(first, ["train"])
    file.write_bytes(file.read_bytes()[:-9])
    assert cli.main(["prep", "--images", str(folder), "--out", str(tmp_path / "y"), "--mpp", "2"]) == ExitCode.DAMAGED


def test_parquet_of_generated_images_says_so(export, samples):
    table = pq.read_table(export(samples, "parquet", "hub") / "data" / "train-00000-of-00001.parquet")
    assert set(table[marking.COLUMN].to_pylist()) == {marking.SOURCE_TYPE}
    with PIL.Image.open(io.BytesIO(table["image"][0].as_py()["bytes"])) as file:
        assert file.text[marking.COLUMN] == marking.SOURCE_TYPE


def test_the_library_opens_the_parquet_set(export, dataset, tmp_path):
    datasets = pytest.importorskip("datasets")
    real, folder = open_dataset(dataset), export(dataset, "parquet", "hub")
    found = datasets.load_dataset(str(folder), split="test", cache_dir=str(tmp_path / "cache"))
    assert found.features["label"].names == list(real.schema.classes)
    for row, record in zip(found, real.read("test"), strict=True):
        np.testing.assert_array_equal(np.array(row["image"]), record.image)


def test_statistics_as_the_fid_tools_read_them(export, dataset, resnet_run, tmp_path):
    cache = ["--features", resnet_run, "--cache", tmp_path / "cache"]
    path = export(dataset, "statistics", "stats.npz", *cache, "--split", "test")
    images = image_sets.from_dataset(open_dataset(dataset), "test")
    from diffpath_jax.evaluation.features.open import open_extractor

    features = open_extractor(resnet_run, resize="tf_bilinear").extract(images.fetch(range(len(images))))
    with np.load(path) as arrays:
        np.testing.assert_allclose(arrays["mu"], np.mean(features.astype(float), axis=0), atol=1e-5)
        np.testing.assert_allclose(arrays["sigma"], np.cov(features.astype(float), rowvar=False), atol=1e-5)
    stored = image_sets.open_set(path, split="")
    assert isinstance(stored, image_sets.Statistics)
    score = pytest.importorskip("pytorch_fid.fid_score")
    mean, covariance = score.compute_statistics_of_path(str(path), None, 1, 32, "cpu")
    np.testing.assert_array_equal(mean, stored.mean)
    np.testing.assert_array_equal(covariance, stored.covariance)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--as", "npz", "--out", "x.png"], "not a .npz file"),
        (["--as", "safetensors", "--out", "x.safetensors"], "no format of --data"),
        (["--out", "x"], "does not tell a format"),
        (["--as", "npz", "--out", "x.npz", "--image_type", "tif"], "not an option of --as npz"),
        (["--as", "statistics", "--out", "x.npz"], "needs it"),
        (["--as", "npz", "--out", "x.npz", "--split", "none"], "no such split"),
    ],
)
def test_what_does_not_fit(dataset, tmp_path, monkeypatch, capsys, words, why):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "--data", str(dataset), *words]) == 2
    assert why in capsys.readouterr().err and not list(tmp_path.iterdir())
