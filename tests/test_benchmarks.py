"""The benchmarks work and measure what they say; how fast anything is, is never tested."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from benchmarks import (
    accelerator,
    convolutions,
    latents,
    make_patches,
    measure,
    ours,
    pods,
    sampling,
    shapes,
    tables,
    trace,
    turns,
)
from benchmarks import slides as slide_reading
from diffpath_jax.diffusion.samplers.loop import image_noise
from diffpath_jax.networks.pure import count_parameters
from diffpath_jax.runs.topology import Traffic
from diffpath_jax.weights.safetensors_file import flatten
from tests.conftest import ALONE

ROOT = Path(__file__).parents[1]
# What a machine with an accelerator may lack.
MISSING = ("grain", "array_record", "ml_collections", "orbax", "tensorboardX", "clu", "tensorflow_datasets")


def run(module, *words, minutes=5.0):
    """Run a benchmark as a user does."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=ALONE, capture_output=True, text=True, timeout=60 * minutes)


def test_interleaved_calls_take_turns():
    order = []
    times = measure.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3)
    assert order == ["a", "b"] * 4
    assert times["a"].count == 3
    assert times["a"].fastest <= times["a"].median <= times["a"].slowest


def test_median_and_range():
    assert measure.times_of([3.0, 1.0, 2.0, 10.0]) == measure.Times(2.5, 1.0, 10.0, 4)


def test_ratios_are_taken_turn_by_turn():
    assert measure.median_ratio([1.0, 30.0, 2.0], [1.0, 20.0, 1.0]) == 1.5


def test_table_has_every_column_of_every_row():
    lines = measure.table([{"a": 1, "b": 2.0}, {"a": 30, "c": None}]).splitlines()
    assert [line.split() for line in lines] == [["a", "b", "c"], ["--", "-", "-"], ["1", "2"], ["30"]]


def test_a_section_may_be_asked_for_in_part():
    parts = accelerator.parts_of(["training:1", "convolution"], tiny=False)
    assert parts == [accelerator.Part("training", 1), accelerator.Part("convolution")]
    # In the order in which they may use the device, whatever the order of the words.
    parts = accelerator.parts_of(["profile:0", "sampling", "torch:2"], tiny=False)
    assert [(part.section, part.number) for part in parts] == [
        ("torch", 2),
        *(("sampling", number) for number in range(accelerator.PARTS["sampling"])),
        ("profile", 0),
    ]
    assert accelerator.parts_of(["training"], tiny=True) == [accelerator.Part("training")]


def test_one_has_the_device_at_a_time_and_the_first_in_the_order_goes_first(tmp_path):
    seen = []

    def work(number, seconds):
        time.sleep(seconds)
        with turns.Turns(tmp_path, number).turn():
            seen.append(f"{number} begins")
            time.sleep(0.8)
            seen.append(f"{number} ends")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3), (0.4, 0.2, 0.0)))
    # The last was there first; the other two came while it was at work.
    assert seen == [f"{number} {what}" for number in (2, 0, 1) for what in ("begins", "ends")]


def test_nobody_waits_for_who_has_given_up(tmp_path):
    (tmp_path / "waiting-0").touch()
    turns.Turns(tmp_path, 0).give_up()
    with turns.Turns(tmp_path, 1).turn():
        assert not list(tmp_path.glob("waiting-*"))


def test_who_dies_hands_the_device_on(tmp_path):
    code = "import os, sys; from pathlib import Path; from benchmarks.turns import Turns\n"
    code += "with Turns(Path(sys.argv[1]), 0).turn(): os._exit(3)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT).returncode == 3
    with turns.Turns(tmp_path, 1).turn():
        pass


def test_time_in_which_any_kernel_runs():
    events = [("a", 0.0, 10.0), ("b", 5.0, 7.0), ("c", 20.0, 30.0), ("d", 25.0, 40.0)]
    assert trace._covered(events) == 10 + 20


@pytest.mark.parametrize("page", list(tables.BLOCKS), ids=lambda page: page.name)
def test_a_page_has_the_tables_of_the_results(page):
    text = page.read_text()
    assert tables.renewed(page, text) == text, "python -m benchmarks.tables --write"
    with pytest.raises(ValueError, match="no block"):
        tables.renewed(page, "")


def test_whatever_stands_between_the_marks_is_replaced():
    text = tables.SPEED.read_text()
    assert tables.renewed(tables.SPEED, text.replace("1.10", "9.99")) == text


def test_what_misses_its_goal_is_said():
    assert tables._judged("38%", missed=True, goal="goal 40%") == "**38%, goal 40% missed**"
    assert tables._judged("54%", missed=False, goal="goal 50%") == "54% (goal 50%)"
    assert tables._judged("1.10", missed=False) == "1.10"


def test_every_distinct_convolution_is_found():
    found = convolutions.of_network(shapes.TINY, 16, 2)
    # Stem, eight blocks of two, the decoder's up block among them, and the head in float32.
    assert all(convolution.kernel[:2] == (3, 3) for convolution in found)
    assert [convolution.dtype for convolution in found].count("float32") == 1
    total = sum(number * convolution.flop for convolution, number in found.items())
    assert 0.5 < total / (2 * ours.forward_flop(shapes.TINY, 16)) < 1


def test_passes_of_a_convolution():
    convolution = convolutions.Convolution((2, 6, 6, 3), (3, 3, 3, 4), (2, 2), ((1, 1), (1, 1)), "float32")
    image, kernel, gradient = convolution.inputs(jax.random.key(0))
    out, to_image, to_kernel = convolution.passes(image, kernel, gradient)
    assert out.shape == gradient.shape == (2, 3, 3, 4)
    # A convolution is linear in both: <out, gradient> is <image, to_image> and <kernel, to_kernel>.
    product = float((out * gradient).sum())
    assert float((image * to_image).sum()) == pytest.approx(product, rel=1e-4)
    assert float((kernel * to_kernel).sum()) == pytest.approx(product, rel=1e-4)
    assert convolution.flop == 2 * 2 * 3 * 3 * 27 * 4


def test_accelerator_needs_no_package_of_the_pipeline():
    code = f"import sys; sys.modules.update(dict.fromkeys({MISSING!r})); import benchmarks.sections"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.full
def test_flop_are_those_that_pytorch_counts():
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks import torch_adm

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        numbers = torch.zeros(1, dtype=torch.int64)
        torch_adm.UNet(shapes.SMALL)(torch.zeros(1, 3, 64, 64), numbers, numbers)
    # XLA counts sums and norms too, but no products with the padding.
    assert ours.forward_flop(shapes.SMALL, 64) == pytest.approx(counter.get_total_flops(), rel=0.05)


@pytest.mark.full
def test_pytorch_network_is_ours():
    torch = pytest.importorskip("torch")
    from benchmarks import torch_adm

    network = ours.make_network(shapes.TINY, jnp.float32)
    params = ours.random_parameters(network, jax.random.key(1))
    other = torch_adm.UNet(shapes.TINY)
    torch_adm.copy_parameters(other, flatten(params))
    assert torch_adm.parameter_count(other) == count_parameters(network)
    rng = np.random.default_rng(0)
    x, t, y = rng.normal(size=(2, 16, 16, 3)).astype(np.float32), np.array([3, 700]), np.array([0, 8])
    expected = network.apply(params, {}, jnp.asarray(x), jnp.asarray(t), {"label": jnp.asarray(y)})[0]
    with torch.no_grad():
        found = other(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(t), torch.tensor(y)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.full
def test_features_against_pytorch(tmp_path):
    pytest.importorskip("torch")
    from benchmarks import features

    # Stops by itself where the two sides' features differ.
    assert features.main(["--out", str(tmp_path / "r.json"), "--batch", "2", "--px", "107", "--rounds", "1"]) == 0
    rows = json.loads((tmp_path / "r.json").read_text())["speed"]
    assert [row["side"] for row in rows] == ["ours", "ours, from 128 px", "PyTorch", "PyTorch traced"]
    assert all(0 < row["images / s"] < np.inf for row in rows)


@pytest.mark.parametrize("shape", [shapes.ADM_256, shapes.SMALL])
def test_pytorch_network_has_our_parameters(shape):
    torch = pytest.importorskip("torch")
    from benchmarks import torch_adm

    with torch.device("meta"):
        other = torch_adm.UNet(shape)
    assert torch_adm.parameter_count(other) == count_parameters(ours.make_network(shape, jnp.float32))


def test_guided_steps_count_twice():
    trained = ours.linear_noise()
    always, half = (how for how in sampling.samplings(10) if how.guidance)
    assert ours.Sampling("ddim", 10).forwards(trained) == 10
    assert always.forwards(trained) == 20
    assert half.forwards(trained) == 15


@pytest.mark.full
def test_pytorch_draws_our_images():
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from benchmarks import torch_adm, torch_sampling

    network = ours.make_network(shapes.TINY, jnp.float32)
    params = ours.random_parameters(network, jax.random.key(1))
    other = torch_adm.UNet(shapes.TINY)
    torch_adm.copy_parameters(other, flatten(params))
    key, labels = jax.random.key(2), np.array([0, 7], np.int32)
    draw = ours.make_draw(network, ours.Sampling("ddim", 10), px=16, num_classes=shapes.TINY.num_classes - 1)
    expected = jax.jit(draw)(params, key, labels)
    x_T = torch.tensor(np.asarray(image_noise(ours.image_keys(key, 2), 0, (16, 16, 3)))).permute(0, 3, 1, 2)
    found = torch_sampling.draw(other, "ddim", 10, x_T, torch.tensor(labels)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-3)


@pytest.mark.full
def test_slides_beside_the_plain_loop(tmp_path):
    done = run("slides", "--tiny", "--out", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "r.json").read_text())
    # 1000 px hold two fields of 448 along each side.
    assert [(row["what"], row["patches"]) for row in content["speed"]] == [
        (what, 4) for what in ("ours", "plain loop, BOX", "plain loop, BICUBIC", "read_region alone")
    ]
    ours, box = content["speed"][:2]
    # Stops by itself where a pixel is further than rounding from its exact average; BOX takes 3 or 4 for 3.5 pixels.
    assert ours["off by, most"] <= 0.51 < box["off by, most"]
    assert box["off by, mean"] < 5
    assert [row["what"] for row in content["processes"]] == ["1 process", "2 processes"]
    assert len(content["grain"]) == 3
    for row in content["speed"] + content["processes"] + content["grain"]:
        assert all(0 < value < np.inf for value in row.values() if isinstance(value, float))


def test_an_exact_average_of_seven_pixels_by_two():
    # 448 pixels to 128: of each seven, the first average takes three and a half.
    line = np.tile(np.arange(448, dtype=np.uint8) % 7, (448, 1))
    found = slide_reading.area_average(Image.fromarray(np.stack([line, line * 2, line * 3], axis=-1)))
    np.testing.assert_allclose(found[0, :2, 0], [(0 + 1 + 2 + 3 / 2) / 3.5, (3 / 2 + 4 + 5 + 6) / 3.5])
    np.testing.assert_allclose(found[..., 2], 3 * found[..., 0])


def test_patches_of_a_data_set(dataset, tmp_path):
    assert make_patches.main(["--dataset", str(dataset), "--out", str(tmp_path / "p.npz"), "--limit", "5"]) == 0
    with np.load(tmp_path / "p.npz") as file:
        assert file["image"].shape == (5, 16, 16, 3)
        assert file["image"].dtype == np.uint8
        assert file["label"].shape == (5,)
        assert len(file["classes"]) == 2


def test_one_section_and_one_without_time(tmp_path):
    done = run("accelerator", "--tiny", "--out", tmp_path, "--sections", "peak", minutes=1)
    assert done.returncode == 0, done.stderr
    (section,) = json.loads((tmp_path / "accelerator.json").read_text())["sections"]
    assert section["status"] == "ok"
    assert len(section["rows"]) == 4
    done = run("accelerator", "--tiny", "--out", tmp_path, "--sections", "training", "--minutes", "0.01", minutes=1)
    assert done.returncode == 0, done.stderr
    assert "training: skipped (1 s are left), 0 s" in done.stdout


@pytest.mark.full
def test_sampling_without_pytorch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert sampling.main(["--tiny", "--out", str(tmp_path / "r.json")]) == 0
    content = json.loads((tmp_path / "r.json").read_text())
    hows = sampling.samplings(4)
    baselines = [sampling.CALLS, sampling.WAITING, sampling.SCAN]
    assert [row["what"] for row in content["overhead"]] == baselines + [how.name for how in hows if not how.guidance]
    assert [row["what"] for row in content["guidance"]] == [
        sampling.DOUBLED,
        *(how.name for how in hows if how.guidance),
    ]
    assert [row["forwards"] for row in content["guidance"]] == [8, 8, 6]
    for row in content["overhead"] + content["guidance"]:
        seconds = [row["fastest s"], row["median s"], row["slowest s"]]
        assert 0 < seconds[0] <= seconds[1] <= seconds[2] < np.inf
        # Overheads may be negative: what is less than nothing is how fast the machine was at that moment.
        assert np.isfinite([value for value in row.values() if isinstance(value, float)]).all()
    assert all(row["as many unguided"] > 0 for row in content["guidance"])
    assert [row["what"] for row in content["pytorch"]] == [hows[0].name, hows[2].name]
    assert all("diffusers" in row["left out"] for row in content["pytorch"])


@pytest.mark.full
def test_all_sections(dataset, tmp_path):
    patches = tmp_path / "p.npz"
    make_patches.main(["--dataset", str(dataset), "--out", str(patches), "--limit", "40"])
    done = run("accelerator", "--tiny", "--out", tmp_path, "--patches", patches, "--minutes", "9", minutes=10)
    assert done.returncode == 0, done.stdout + done.stderr
    sections = json.loads((tmp_path / "accelerator.json").read_text())["sections"]
    assert sorted(section["section"] for section in sections) == sorted(accelerator.SECTIONS)
    assert {section["status"] for section in sections} == {"ok"}, done.stdout
    assert all(section["rows"] for section in sections)
    assert {path.name for path in tmp_path.iterdir()} >= {"samples.png", "loss.json"}


def test_bytes_that_a_chip_of_a_pod_sends():
    traffic = {"all-reduce": Traffic(1, 100), "all-gather": Traffic(2, 50), "reduce-scatter": Traffic(1, 10)}
    # A sum goes round twice; a part of four leaves as three others' sums.
    assert pods.sent_bytes(traffic, fsdp=4) == 2 * 100 + 50 + 3 * 10


def test_compiled_chips_hold_their_part_of_the_state_and_little_else():
    content = json.loads(pods.RESULTS.read_text())
    state = {(row["model"], row["fsdp"]): row["state GiB"] for row in content["state"]}
    assert all(state[model, 64] < state[model, 1] / 32 for model in pods.MODELS)
    for row in content["rows"]:
        # Besides the state the batch, and what a TPU pads.
        assert 0 < row["arguments GiB"] - state[row["model"], row["fsdp"]] < 0.15


@pytest.mark.full
def test_a_row_of_a_pod_that_is_there_is_not_compiled_again(tmp_path, monkeypatch):
    words = ["--tiny", "--out", str(tmp_path / "r.json"), "--picture", str(tmp_path / "r.png")]
    assert pods.main(words) == 0
    (row,) = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert (row["chip"], row["chips"], row["fsdp"]) == ("cpu", 1, 1)
    assert row["sent MB"] == 0
    assert (tmp_path / "r.png").stat().st_size > 0
    monkeypatch.setattr(pods, "compiled_row", None)
    assert pods.main(words) == 0


def test_stored_latents_are_compared_turn_by_turn():
    taken = {latents.STORED: [2.0, 4.0, 2.0], latents.ENCODED: [3.0, 6.0, 8.0]}
    stored, encoded = latents.rows_of(taken, batch=8, base=latents.STORED)
    ratio = f"time over that of {latents.STORED}"
    assert (stored[ratio], encoded[ratio]) == (1.0, 1.5)
    assert (stored["img / processor s"], encoded["img / processor s"]) == (4.0, 8 / 6)


@pytest.mark.full
@pytest.mark.parametrize("models", [latents.BOTH, "latent"])
def test_stored_latents_against_encoding(tmp_path, models):
    done = run("latents", "--size", "tiny", "--models", models, "--rounds", 1, "--out", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "r.json").read_text())
    trained, drawn = [latents.STORED, latents.ENCODED], [latents.DECODE, latents.DENOISE]
    if models == latents.BOTH:
        trained, drawn = [*trained, latents.PIXELS], [*drawn, latents.PIXEL_DENOISE]
    assert [row["what"] for row in content["training"]] == trained
    assert [row["what"] for row in content["drawing"]] == drawn
    assert all(0 < row["img / processor s"] < np.inf for row in content["training"] + content["drawing"])


@pytest.mark.full
def test_training_against_pytorch(tmp_path):
    pytest.importorskip("torch")
    done = run("training", "--settings", "tiny", "--out", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "r.json").read_text())
    assert [row["side"] for row in content["memory"]] == ["ours", "PyTorch"]
    assert len({row["parameters"] for row in content["speed"]}) == 1
    assert [(row["what"], row["side"]) for row in content["speed"]] == [
        (what, side) for what in ("forward", "train step") for side in ("ours", "PyTorch")
    ]


@pytest.mark.full
def test_sampling_against_pytorch(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    done = run("sampling", "--tiny", "--out", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "r.json").read_text())["pytorch"]
    names = [ours.Sampling(sampler, 4).name for sampler in sampling.COMPARED]
    assert [row["what"] for row in rows] == [what for name in names for what in (name, f"{name}, PyTorch")]
    assert all(0 < row["s / image"] < np.inf for row in rows)
    assert all(0 < row["ours / this"] < np.inf for row in rows[1::2])
