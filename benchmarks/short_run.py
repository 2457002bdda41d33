"""A minute or two of training on real patches: does the loss fall, and do the samples look like tissue?"""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ours
from benchmarks.measure import Row
from benchmarks.shapes import NOISE_STEPS, SMALL, TINY, Shape
from diffpath_jax.diffusion.schedule import cosine_schedule
from diffpath_jax.io.files import replace_file, write_json
from diffpath_jax.networks.codecs import to_pixels
from diffpath_jax.shapes import PRNGKey, Tree
from diffpath_jax.training.optim import OptimConfig
from diffpath_jax.training.step import TrainState, init_state, make_train_step
from diffpath_jax.training.tasks.task import NETWORK

OPTIM = OptimConfig(learning_rate=5e-4, warmup_steps=100, b2=0.99, clip_norm=1.0, ema_decay=0.995)
BATCH, TINY_BATCH = 64, 4
# Steps between two looks at the clock and the loss.
LOOK_EVERY = 10
# Images of each class in a row of the grid: real ones left, drawn ones right.
COLUMNS = 6
# Time kept for drawing, as a multiple of the time that the train step took to compile.
DRAWING = 1.5


def train_and_draw(patches: Path, out: Path, *, deadline: float, tiny: bool) -> Row:
    """Train in bfloat16 and draw until the time (``time.monotonic``) is up.

    Writes ``samples.png`` (of each class real patches left, drawn ones right), ``loss.json`` and, where Matplotlib is,
    ``loss.png``.
    """
    with np.load(patches) as file:
        images, labels, classes = file["image"], file["label"], file["classes"].tolist()
    shape = Shape(**{**vars(TINY if tiny else SMALL), "num_classes": len(classes) + 1})
    start = time.monotonic()
    batch = TINY_BATCH if tiny else BATCH
    params, losses, rate = _train(shape, images, labels, batch=batch, deadline=deadline)
    _write_curve(out, losses)
    drawn = _draw(shape, params, px=images.shape[1], num_classes=len(classes), steps=3 if tiny else 50)
    rows = []
    for number in range(len(classes)):
        real = images[labels == number][:COLUMNS]
        real = np.resize(real, (COLUMNS, *images.shape[1:])) if len(real) else np.zeros_like(drawn[:COLUMNS])
        rows.append(np.concatenate([*real, *drawn[number * COLUMNS : (number + 1) * COLUMNS]], axis=1))
    _write_png(out / "samples.png", np.concatenate(rows))
    return {
        "patches": len(images),
        "px": images.shape[1],
        "classes": len(classes),
        "batch": batch,
        "steps": losses[-1][0],
        "img/s": rate,
        "first loss": losses[0][1],
        "last loss": float(np.mean([loss for _, loss in losses[-5:]])),
        "seconds": time.monotonic() - start,
    }


def _train(
    shape: Shape, images: np.ndarray, labels: np.ndarray, *, batch: int, deadline: float
) -> tuple[Tree, list[tuple[int, float]], float]:
    """The averaged parameters, (step, mean loss since the last), and images a second without compilation."""
    task = ours.make_task(shape, jnp.bfloat16, schedule=cosine_schedule(NOISE_STEPS), prediction="v")
    take = make_train_step(task, OPTIM, num_steps=ours.NUM_STEPS, log_every=LOOK_EVERY)
    data = jax.device_put({"image": images, "label": labels.astype(np.int32)})
    key = jax.random.key(0)

    def step(state: TrainState, data: Any, key: PRNGKey) -> TrainState:
        pick, flip = jax.random.split(jax.random.fold_in(key, -1 - state.step))
        chosen = jax.random.randint(pick, (batch,), 0, len(images))
        image = data["image"][chosen]
        image = jnp.where(jax.random.bernoulli(flip, 0.5, (batch, 1, 1, 1)), image[:, :, ::-1], image)
        return take(state, {"image": image, "label": data["label"][chosen]}, key)[0]

    example = {"image": images[:batch], "label": labels[:batch].astype(np.int32)}
    fresh = jax.jit(lambda k: init_state(task, OPTIM, key=k, batch=example, num_steps=ours.NUM_STEPS))
    state = fresh(key)
    begin = time.monotonic()
    run = jax.jit(step, donate_argnums=0).lower(state, data, key).compile()
    losses: list[tuple[int, float]] = []
    # Sampling will take about as long to compile as this did, and a little longer to run.
    until = deadline - DRAWING * (time.monotonic() - begin)
    begin = time.monotonic()
    while not losses or time.monotonic() < until:
        for _ in range(LOOK_EVERY):
            state = run(state, data, key)
        total, weight = np.asarray(state.window["loss"])
        losses.append(((len(losses) + 1) * LOOK_EVERY, float(total / weight)))
    rate = losses[-1][0] * batch / (time.monotonic() - begin)
    return state.ema[NETWORK], losses, rate


def _draw(shape: Shape, params: Tree, *, px: int, num_classes: int, steps: int) -> np.ndarray:
    """``COLUMNS`` images of each class, classes one after the other."""
    draw = ours.make_draw(
        ours.make_network(shape, jnp.bfloat16),
        ours.Sampling("ddim", steps),
        px=px,
        num_classes=num_classes,
        schedule=cosine_schedule(NOISE_STEPS),
        prediction="v",
    )
    labels = jnp.repeat(jnp.arange(num_classes, dtype=jnp.int32), COLUMNS)
    return np.asarray(to_pixels(jax.jit(draw)(params, jax.random.key(1), labels)))


def _write_curve(out: Path, losses: list[tuple[int, float]]) -> None:
    write_json(out / "loss.json", [{"step": step, "loss": loss} for step, loss in losses])
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(6, 3), layout="tight")
    axes = figure.subplots()
    axes.semilogy(*zip(*losses, strict=True))
    axes.set(xlabel="step", ylabel="training loss")
    with replace_file(out / "loss.png") as temporary:
        figure.savefig(temporary, format="png")


def _write_png(path: Path, image: np.ndarray) -> None:
    """Write with OpenCV, or with Pillow where that is missing."""
    try:
        from diffpath_jax.render import image_grid
    except ImportError:
        from PIL import Image

        with replace_file(path) as temporary:
            Image.fromarray(image).save(temporary, format="png")
        return
    image_grid.write_png(path, image)
