"""Who takes part: settings of guided-diffusion, and recipes of ours. Imports neither JAX nor PyTorch."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

from benchmarks.shapes import Shape

# Network calls for an image, the same for all.
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
        train: overrides of the config, as ``diffpath train`` takes them.
        sample: options of ``diffpath sample``; ``RUN`` in them is the run itself.
        config: what is overridden.
    """

    name: str
    train: tuple[str, ...] = ()
    sample: tuple[str, ...] = ("--sampler", "ddim", "--steps", str(NETWORK_CALLS))
    config: str = "diffpath:demo_ddpm"


Contestant = Theirs | Ours


def their_settings() -> Iterator[Theirs]:
    """Every setting that is tried before the best is chosen on validation patches."""
    options = product(("eps", "x0"), ("linear", "cosine"), (1e-4, 3e-4, 1e-3), (16, 64), (32, 64))
    for prediction, schedule, rate, batch, channels in options:
        yield Theirs(prediction, schedule, rate, batch, channels)


# No stem, AdamW and x0: what beat the demo's recipe on colorectal patches.
PLAIN = (
    "network.stem_block=1",
    "network.channel_mult=(1,2,2)",
    "network.attention_downsamples=(4,)",
    "network.num_heads=4",
    "optim.muon_learning_rate=0.0",
    "optim.learning_rate=1e-3",
    "diffusion.prediction=x0",
    "data.batch_size=16",
)


# What each part changes in the plain recipe.
PARTS: dict[str, tuple[str, ...]] = {
    "v": ("diffusion.prediction=v",),
    "sigmoid": ("diffusion.loss=sigmoid",),
    "laplace": ("diffusion.timesteps=laplace",),
    "logit_normal": ("diffusion.timesteps=logit_normal",),
    "muon": ("optim.muon_learning_rate=0.02", "optim.learning_rate=1.5e-3"),
    "stem": ("network.stem_block=2", "network.channel_mult=(1,1)", "network.attention_downsamples=(2,)"),
    # In place of the stem: a narrow level at full resolution, whose skips know nothing of a grid of 2 px.
    "narrow": ("network.channel_mult=(0.5,1,1)", "network.attention_downsamples=(2,)"),
    "narrower": ("network.channel_mult=(0.25,1,1)", "network.attention_downsamples=(2,)", "network.groups=16"),
    "crops": ("data.crop_px=(16,)", "data.crop_steps=400"),
    "batch_32": ("data.batch_size=32",),
    "batch_8": ("data.batch_size=8",),
    "rate_5e-4": ("optim.learning_rate=5e-4",),
    "rate_2e-3": ("optim.learning_rate=2e-3",),
    "no_decay": ("optim.decay=constant",),
    "ema_0.99": ("optim.ema_decay=0.99",),
    "ema_0.999": ("optim.ema_decay=0.999",),
}


def our_recipes() -> Iterator[Ours]:
    """The demo's recipe, the plain one, and the plain one with each part alone."""
    yield Ours("ours-demo")
    yield Ours("ours-plain", PLAIN)
    for name, changes in PARTS.items():
        yield Ours(f"ours-{name}", (*PLAIN, *changes))
