"""Who takes part: settings of guided-diffusion, and recipes of ours. Imports neither JAX nor PyTorch."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from benchmarks.shapes import Shape

# Network calls for an image, the same for all: steps of DDPM, which is guided-diffusion's own sampler.
NETWORK_CALLS = 50


@dataclass(frozen=True)
class Theirs:
    """A setting of guided-diffusion: AdamW, a moving average of the parameters, flips.

    Attributes:
        prediction: what the network is asked for.
        schedule: of the noise.
        learning_rate: constant, as theirs.
        batch: images of a step.
        channels: of the network.
        ema_decay: of the moving average; theirs is .9999, made for runs of days.
    """

    prediction: Literal["eps", "x0"] = "eps"
    schedule: Literal["linear", "cosine"] = "linear"
    learning_rate: float = 1e-4
    batch: int = 16
    channels: int = 64
    ema_decay: float = 0.995

    @property
    def name(self) -> str:
        """For tables and files."""
        return f"theirs-{self.prediction}-{self.schedule}-{self.learning_rate:g}-b{self.batch}-c{self.channels}"

    def shape(self, num_classes: int) -> Shape:
        """Its network for patches of 32 px; the null class is never drawn in training."""
        return Shape(
            channels=self.channels,
            channel_mult=(1, 2, 2),
            num_res_blocks=1,
            attention_downsamples=(4,),
            num_heads=4,
            num_classes=num_classes + 1,
        )


@dataclass(frozen=True)
class Ours:
    """A recipe of ours.

    Attributes:
        name: for tables and files.
        train: overrides of the demo's config, as ``diffpath train`` takes them.
    """

    name: str
    train: tuple[str, ...] = ()

    def training(self, run: Path, dataset: Path, *, minutes: float, seed: int) -> list[str]:
        """Words of ``diffpath`` that train it for some minutes, which end the run; checkpoints would cost time."""
        rare = ("train.num_steps=1000000", "train.checkpoint_every=2000", "train.log_every=10")
        budget = (f"data.train={dataset}", f"train.minutes={minutes}", f"seed={seed}")
        words = (f"--config.{word}" for word in (*self.train, *rare, *budget))
        return ["train", "--config", "diffpath:demo_ddpm", "--workdir", str(run), *words]

    def drawing(self, run: Path, out: Path, *, per_class: int, seed: int) -> list[str]:
        """Words of ``diffpath`` that draw from it."""
        sampler = ["--sampler", "ddpm", "--steps", str(NETWORK_CALLS)]
        count = ["--num_per_class", str(per_class), "--batch_size", "50", "--seed", str(seed)]
        return ["sample", "--workdir", str(run), "--out", str(out), *count, *sampler]


Contestant = Theirs | Ours


def their_settings() -> Iterator[Theirs]:
    """Every setting that is tried before the best is chosen on validation patches."""
    options = product(("eps", "x0"), ("linear", "cosine"), (1e-4, 3e-4, 1e-3), (16, 64), (32, 64))
    for prediction, schedule, rate, batch, channels in options:
        yield Theirs(prediction, schedule, rate, batch, channels)


# Our network at full resolution, of guided-diffusion's widths.
FULL_RESOLUTION = (
    "network.stem_block=1",
    "network.channel_mult=(1,2,2)",
    "network.channels=32",
    "network.groups=16",
)
ADAMW = ("optim.muon_learning_rate=0.0", "optim.learning_rate=1e-3")
# What is left of the recipe when it trains as theirs does.
PLAIN = (*FULL_RESOLUTION, *ADAMW, "diffusion.loss=simple", "data.balanced=False")

# What is left out of the recipe, or put in its place, one thing at a time.
PARTS: dict[str, tuple[str, ...]] = {
    "full_resolution": FULL_RESOLUTION,
    "adamw": ADAMW,
    "attention": ("network.attention_downsamples=(2,)",),
    "wider": ("network.channels=96",),
    "v": ("diffusion.prediction=v",),
    "eps": ("diffusion.prediction=eps",),
    "simple": ("diffusion.loss=simple",),
    "sigmoid": ("diffusion.loss=sigmoid",),
    "laplace": ("diffusion.timesteps=laplace",),
    "logit_normal": ("diffusion.timesteps=logit_normal",),
    "crops": ("data.crop_px=(16,)", "data.crop_steps=2000"),
    "as_they_come": ("data.balanced=False",),
    "dihedral": ("data.augment=dihedral",),
    "batch_32": ("data.batch_size=32",),
    "batch_8": ("data.batch_size=8",),
    "rates_half": ("optim.muon_learning_rate=0.01", "optim.learning_rate=7.5e-4"),
    "rates_double": ("optim.muon_learning_rate=0.04", "optim.learning_rate=3e-3"),
    "no_decay": ("optim.decay=constant",),
    "ema_0.99": ("optim.ema_decay=0.99",),
    "ema_0.999": ("optim.ema_decay=0.999",),
}

# What won on validation patches: the demo's config as it is.
RECIPE = Ours("ours")


def our_recipes() -> Iterator[Ours]:
    """The recipe, the plain one, and the recipe with each part changed alone."""
    yield RECIPE
    yield Ours("ours-plain", PLAIN)
    for name, changes in PARTS.items():
        yield Ours(f"ours-{name}", changes)
