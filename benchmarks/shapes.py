"""The networks and settings that are measured. Imports neither JAX nor PyTorch, so that each can be measured alone."""

from collections.abc import Callable
from dataclasses import dataclass

# Row 0 to N-2 are classes, the last is the null class.
CLASS_ROWS = 9
# T of the noise schedule, its betas (Ho et al. 2020), and the share of labels dropped.
NOISE_STEPS, BETA_START, BETA_END = 1000, 1e-4, 2e-2
LABEL_DROPOUT = 0.1
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class Shape:
    """An ADM UNet: the fields that ours and PyTorch's have in common, with the published values for 128 px."""

    channels: int = 256
    channel_mult: tuple[int, ...] = (1, 1, 2, 3, 4)
    num_res_blocks: int = 2
    attention_downsamples: tuple[int, ...] = (4, 8, 16)
    num_heads: int = 4
    groups: int = 32
    num_classes: int = CLASS_ROWS

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each resolution level."""
        return tuple(self.channels * mult for mult in self.channel_mult)


@dataclass(frozen=True)
class FirstStageShape:
    """An autoencoder with a codebook, with the published values of VQ-f4."""

    channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 4)
    num_res_blocks: int = 2
    latent_channels: int = 3
    codebook_size: int = 8192
    groups: int = 32


@dataclass(frozen=True)
class LatentShape:
    """The UNet of latent diffusion, with the values of the authors' config.

    Attributes:
        first_stage: whose latents it works in.
        stored: whether its batches are stored latents, or images that are encoded in the step.
    """

    first_stage: FirstStageShape = FirstStageShape()
    stored: bool = True
    channels: int = 192
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    num_res_blocks: int = 2
    attention_downsamples: tuple[int, ...] = (2, 4, 8)
    num_heads: int = 1
    context_width: int = 512
    groups: int = 32
    num_classes: int = CLASS_ROWS


@dataclass(frozen=True)
class Setting:
    """A network at work.

    Attributes:
        name: for tables.
        shape: the network.
        px: side of the images.
        batch: images of a step.
    """

    name: str
    shape: Shape | LatentShape
    px: int
    batch: int


@dataclass(frozen=True)
class Calls:
    """What is timed; each call returns when its result is there.

    Attributes:
        forward: the network alone, without gradients.
        train_step: noise, forward, backward, Adam.
        parameters: trained numbers.
        compile_seconds: what it took to get ready; 0 where nothing is compiled.
    """

    forward: Callable[[], None]
    train_step: Callable[[], None]
    parameters: int
    compile_seconds: float


ADM_256 = Shape()
ADM_128 = Shape(channels=128)
SMALL = Shape(channels=64, channel_mult=(1, 2, 2), attention_downsamples=(4,))
LDM = LatentShape()
TINY_LATENT = LatentShape(
    FirstStageShape(channels=16, channel_mult=(1, 1), num_res_blocks=1, codebook_size=16, groups=8),
    channels=16,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_downsamples=(2,),
    context_width=16,
    groups=8,
)
TINY = Shape(channels=16, channel_mult=(1, 2), num_res_blocks=1, attention_downsamples=(2,), num_heads=2, groups=8)
