"""The Inception weights of FID: into our form, known by their digest, and back as features."""

import functools
import hashlib
import io
import os
import urllib.error
import urllib.request

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.commands import convert as command
from diffpath_jax.evaluation.features.inception import load_inception
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.weights import from_inception, safetensors_file
from diffpath_jax.weights.downloads import PublishedFile
from tests.golden import weights

GOLDEN = weights.load("inception.npz")
URL = "https://example.org/weights/inception.safetensors"
REAL = os.environ.get("DIFFPATH_INCEPTION")


@functools.cache
def drawn():
    return weights.state_dict(GOLDEN["names"])


def published_state():
    return dict(drawn())


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Random weights by published names, with what a PyTorch file has more than that."""
    path = tmp_path_factory.mktemp("published") / "inception.safetensors"
    counter = {"Conv2d_1a_3x3.bn.num_batches_tracked": np.float32(0), "AuxLogits.fc.bias": np.zeros(3, np.float32)}
    safetensors_file.write_parameters(path, published_state() | counter, {})
    return path


@pytest.fixture
def is_published(checkpoint, monkeypatch):
    """Makes the random weights the published ones."""
    known = PublishedFile(URL, hashlib.sha256(checkpoint.read_bytes()).hexdigest())
    source = command.SOURCES["inception"]
    monkeypatch.setitem(command.SOURCES, "inception", command.Source(source.convert, source.use, published=known))


@pytest.fixture(scope="module")
def unverified(checkpoint):
    """The converted file of other weights than the published ones."""
    out = checkpoint.with_name("unverified.safetensors")
    assert run("--file", checkpoint, "--out", out, "--unverified") == 0
    return out


def run(*words, source="inception"):
    return cli.main(["convert", "--from", source, *map(str, words)])


def one_line(capsys):
    """What a failed command said."""
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert "\n" not in said
    return said


def test_other_weights_are_taken_only_when_asked_and_say_so(checkpoint, unverified, tmp_path, capsys):
    assert run("--file", checkpoint, "--out", tmp_path / "no.safetensors") == ExitCode.DAMAGED
    assert "is not that of pt_inception-2015-12-05-6726825d.pth, 6726825d0af5" in one_line(capsys)
    assert list(tmp_path.iterdir()) == []
    about = safetensors_file.read_parameters(unverified)[1]
    assert about["published"] is False
    assert about["network"] == {"kind": "inception_fid"}
    assert not load_inception(unverified, resize="clean").published


def test_the_published_weights_say_so(checkpoint, is_published, tmp_path):
    out = tmp_path / "out.safetensors"
    assert run("--file", checkpoint, "--out", out) == 0
    assert safetensors_file.read_parameters(out)[1]["published"] is True
    assert load_inception(out, resize="clean").published


def test_a_converted_file_gives_the_features_of_the_original(unverified):
    loaded = load_inception(unverified, resize="tf_bilinear")
    pixels = weights.integers("inception whole", 256, (1, 64, 64, 3)).astype(np.uint8)
    found = jax.jit(loaded.apply)(loaded.params, jnp.asarray(pixels))
    assert found.shape == (1, 2048)
    assert weights.relative_error(found, GOLDEN["whole/features"]) < 1e-5
    assert loaded.digest == hashlib.sha256(unverified.read_bytes()).hexdigest()
    direct = from_inception.from_inception(published_state(), where="golden").params
    assert all(map(np.array_equal, jax.tree.leaves(loaded.params), jax.tree.leaves(direct)))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda s: s.pop("Mixed_6c.branch7x7_2.conv.weight"), "not used|missing"),
        (lambda s: s.pop("Mixed_6c.branch7x7_2.bn.bias"), "bn.bias"),
        (lambda s: s.update({"Mixed_5b.extra": np.zeros(3, np.float32)}), "not used"),
        (lambda s: s.update({"fc.weight": np.zeros((1000, 2048), np.float32)}), "does not fit"),
        (lambda s: s.update({"Conv2d_3b_1x1.bn.weight": np.ones(1, np.float32)}), "does not fit"),
        (lambda s: s.update({"Conv2d_3b_1x1.bn.running_var": -np.ones(80, np.float32)}), "does not fit"),
        (lambda s: s.update({"fc.bias": np.full(1008, np.nan, np.float32)}), "not finite"),
        (lambda s: s.clear(), "missing"),
    ],
)
def test_another_network_is_refused(spoil, why):
    state = published_state()
    spoil(state)
    with pytest.raises(DiffpathError, match=why) as caught:
        from_inception.from_inception(state, where="spoiled")
    assert caught.value.code == ExitCode.DAMAGED


def test_a_norm_is_folded_as_it_is_defined():
    rng = np.random.default_rng(0)
    state = {"a.conv.weight": rng.normal(size=(4, 3, 1, 1)).astype(np.float32)}
    state |= {f"a.bn.{kind}": rng.uniform(0.5, 2, 4).astype(np.float32) for kind in from_inception.NORM}
    folded, x = from_inception.fold_norms(state), rng.normal(size=3)
    y = state["a.conv.weight"][..., 0, 0] @ x
    y = (y - state["a.bn.running_mean"]) / np.sqrt(state["a.bn.running_var"] + 1e-3)
    expected = y * state["a.bn.weight"] + state["a.bn.bias"]
    np.testing.assert_allclose(folded["a.weight"][..., 0, 0] @ x + folded["a.bias"], expected, rtol=1e-5)


def test_a_real_pytorch_file_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    content = {name: torch.from_numpy(array) for name, array in published_state().items()}
    content["Conv2d_1a_3x3.bn.num_batches_tracked"] = torch.tensor(7)
    torch.save(content, tmp_path / "inception.pth")
    out = tmp_path / "out.safetensors"
    assert run("--file", tmp_path / "inception.pth", "--out", out, "--unverified") == 0
    found = from_inception.from_inception(published_state(), where="golden").params
    written = safetensors_file.read_parameters(out)[0]
    assert all(np.array_equal(written[name], array) for name, array in safetensors_file.flatten(found).items())


def test_a_download_is_checked_and_leaves_nothing_else(checkpoint, is_published, tmp_path, monkeypatch, capsys):
    asked = []

    def answer(content):
        def urlopen(url, timeout):
            asked.append(url)
            return io.BytesIO(content)

        return urlopen

    monkeypatch.setattr(urllib.request, "urlopen", answer(checkpoint.read_bytes()))
    out = tmp_path / "new" / "out.safetensors"
    assert run("--download", "--out", out) == 0
    assert asked == [URL]
    assert safetensors_file.read_parameters(out)[1]["published"] is True
    assert list(out.parent.iterdir()) == [out]
    capsys.readouterr()
    monkeypatch.setattr(urllib.request, "urlopen", answer(b"<html>not found</html>"))
    assert run("--download", "--out", tmp_path / "other.safetensors") == ExitCode.DAMAGED
    assert "SHA-256" in one_line(capsys)
    assert not (tmp_path / "other.safetensors").exists()


@pytest.mark.parametrize("error", [urllib.error.URLError("no route"), TimeoutError("no route"), OSError("no route")])
def test_a_download_without_network_is_one_line(tmp_path, monkeypatch, capsys, error):
    def urlopen(url, timeout):
        raise error

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    assert run("--download", "--out", tmp_path / "out.safetensors") == ExitCode.BAD_INPUT
    said = one_line(capsys)
    assert "no route" in said
    assert "--file" in said
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_downloaded_unasked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_, **__: pytest.fail("asked the network"))
    assert run("--file", tmp_path / "nowhere.pth", "--out", tmp_path / "out.safetensors") == ExitCode.BAD_INPUT
    assert "no such file" in one_line(capsys)


@pytest.mark.parametrize(
    ("source", "words", "why"),
    [
        ("inception", ["--file", "x", "--num_heads", "4"], "not an option of --from inception"),
        ("ldm", ["--file", "x", "--heads", "y"], "not an option of --from ldm"),
        ("vqgan", ["--file", "x", "--num_heads", "4"], "not an option of --from vqgan"),
        ("lpips", ["--file", "x", "--raw_parameters"], "not an option of --from lpips"),
        ("adm", ["--download"], "no one published file"),
        ("adm", ["--file", "x", "--unverified"], "no one published file"),
        ("inception", ["--download", "--unverified"], "always verified"),
    ],
)
def test_options_of_other_sources_are_refused(capsys, source, words, why):
    assert run(*words, "--out", "x.safetensors", source=source) == ExitCode.BAD_INPUT
    assert why in one_line(capsys)


def test_options_of_a_source_reach_it(tmp_path, capsys):
    state = weights.state_dict(weights.load("adm_networks.npz")["film/names"])
    safetensors_file.write_parameters(tmp_path / "adm.safetensors", state, {})
    words = ["--file", tmp_path / "adm.safetensors", "--out", tmp_path / "out.safetensors"]
    assert run(*words, "--num_heads", "2", source="adm") == 0
    about = safetensors_file.read_parameters(tmp_path / "out.safetensors")[1]
    assert about["network"]["num_heads"] == 2
    assert "published" not in about


def test_other_parameters_are_not_taken_for_inception(tmp_path):
    safetensors_file.write_parameters(tmp_path / "p.safetensors", {"a": np.zeros(3)}, {"network": {"kind": "unet_adm"}})
    with pytest.raises(DiffpathError, match="not those of the Inception network"):
        load_inception(tmp_path / "p.safetensors", resize="clean")
    with pytest.raises(DiffpathError, match="use one of tf_bilinear, clean"):
        load_inception(tmp_path / "p.safetensors", resize="bicubic")
    with pytest.raises(DiffpathError, match="no such file"):
        load_inception(tmp_path / "nowhere.safetensors", resize="clean")


def test_one_changed_bit_is_noticed(unverified, tmp_path):
    content = bytearray(unverified.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(content)
    with pytest.raises(DiffpathError, match="do not match their digest") as caught:
        load_inception(tmp_path / "damaged.safetensors", resize="clean")
    assert caught.value.code == ExitCode.DAMAGED


def test_missing_arrays_are_named(unverified, tmp_path):
    flat, about = safetensors_file.read_parameters(unverified)
    del flat["fc.bias"]
    safetensors_file.write_parameters(tmp_path / "part.safetensors", flat, about)
    with pytest.raises(DiffpathError, match=r"no 'fc.bias'"):
        load_inception(tmp_path / "part.safetensors", resize="clean")


@pytest.mark.skipif(
    not REAL,
    reason="DIFFPATH_INCEPTION names no pt_inception-2015-12-05-6726825d.pth. With it: its SHA-256, conversion, and "
    "features equal to torch-fidelity's from the same file. No published number needs no data set",
)
def test_the_real_weights(tmp_path):
    out = tmp_path / "real.safetensors"
    assert run("--file", REAL, "--out", out) == 0
    loaded = load_inception(out, resize="tf_bilinear")
    assert loaded.published
    reference = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch = pytest.importorskip("torch")
    network = reference.FeatureExtractorInceptionV3("", ["2048"], feature_extractor_weights_path=REAL)
    pixels = weights.integers("real", 256, (4, 128, 128, 3)).astype(np.uint8)
    expected = network(torch.from_numpy(pixels).movedim(-1, 1))[0].numpy()
    found = jax.jit(loaded.apply)(loaded.params, jnp.asarray(pixels))
    assert weights.relative_error(found, expected) < 1e-4
