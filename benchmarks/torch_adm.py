"""ADM's UNet in PyTorch, after the paper: what ours is measured against (Dhariwal and Nichol 2021, section 3).

Parameters carry the names that ours have, so :func:`copy_parameters` can compare the two networks number by number.
Attention goes through PyTorch's own fused kernel. Never imports JAX.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch._functorch import config as functorch_config
from torch._inductor.compile_fx import compile_fx
from torch.nn import functional

from benchmarks import measure
from benchmarks.shapes import BETA_END, BETA_START, LABEL_DROPOUT, LEARNING_RATE, NOISE_STEPS, Calls, Setting, Shape

FORWARD, TRAIN_STEP = "forward", "train step"
# PyTorch compiles the backward pass with the forward pass, and not when it first runs, where it knows how.
_AT_ONCE = {name: True for name in ("force_non_lazy_backward_lowering",) if hasattr(functorch_config, name)}


class ResBlock(nn.Module):
    """GN, SiLU, [resample], 3x3; then GN with scale and shift from the embedding, SiLU, 3x3; plus the skip branch."""

    def __init__(self, shape: Shape, inputs: int, outputs: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.in_norm = nn.GroupNorm(shape.groups, inputs)
        self.in_conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.condition = nn.Linear(4 * shape.channels, 2 * outputs)
        self.out_norm = nn.GroupNorm(shape.groups, outputs)
        self.out_conv = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Apply."""
        h = self.in_conv(self._resample(functional.silu(self.in_norm(x))))
        scale, shift = self.condition(functional.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        h = self.out_conv(functional.silu(self.out_norm(h) * (1 + scale) + shift))
        return self.skip(self._resample(x)) + h

    def _resample(self, x: Tensor) -> Tensor:
        if self.scale == 2:
            return functional.interpolate(x, scale_factor=2, mode="nearest")
        return x if self.scale == 1 else functional.avg_pool2d(x, 2)


class SelfAttention(nn.Module):
    """Residual self-attention over all positions; channels are split into heads first, into q, k, v second."""

    def __init__(self, shape: Shape, channels: int) -> None:
        super().__init__()
        self.heads = shape.num_heads
        self.norm = nn.GroupNorm(shape.groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        batch, channels, height, width = x.shape
        flat = self.norm(x).reshape(batch, channels, height * width)
        qkv = self.qkv(flat).reshape(batch, self.heads, 3, channels // self.heads, height * width)
        q, k, v = (part.transpose(2, 3) for part in qkv.unbind(2))
        attended = functional.scaled_dot_product_attention(q, k, v)
        return x + self.out(attended.transpose(2, 3).reshape(batch, channels, -1)).reshape(x.shape)


class Stage(nn.Module):
    """A block and, at some resolutions, attention after it."""

    def __init__(self, shape: Shape, inputs: int, outputs: int, *, attend: bool = False, scale: float = 1.0) -> None:
        super().__init__()
        self.block = ResBlock(shape, inputs, outputs, scale=scale)
        self.attention = SelfAttention(shape, outputs) if attend else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Apply both."""
        return self.attention(self.block(x, embedding))


class TimeEmbedding(nn.Module):
    """Sinusoids of the timestep, cosines first, through two dense layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.half = channels // 2
        self.into = nn.Linear(channels, 4 * channels)
        self.out = nn.Linear(4 * channels, 4 * channels)

    def forward(self, t: Tensor) -> Tensor:
        """Embed."""
        powers = torch.arange(self.half, dtype=torch.float32, device=t.device) / self.half
        angles = t.float()[:, None] * torch.exp(-math.log(1e4) * powers)
        return self.out(functional.silu(self.into(torch.cat([angles.cos(), angles.sin()], dim=1))))


class Encoder(nn.Module):
    """Stem, downward path and middle."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        width = shape.widths[0]
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.skip_widths = [width]
        self.down = nn.ModuleList()
        for level, out_width in enumerate(shape.widths):
            for _ in range(shape.num_res_blocks):
                attend = 2**level in shape.attention_downsamples
                self.down.append(Stage(shape, width, out_width, attend=attend))
                width = out_width
                self.skip_widths.append(width)
            if level < len(shape.widths) - 1:
                self.down.append(Stage(shape, width, width, scale=0.5))
                self.skip_widths.append(width)
        self.middle = nn.ModuleList([Stage(shape, width, width, attend=attend) for attend in (True, False)])
        self.width = width

    def forward(self, x: Tensor, embedding: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The features after the middle, and those that the decoder takes up again."""
        h = self.stem(x)
        skips = [h]
        for stage in self.down:
            h = stage(h, embedding)
            skips.append(h)
        for stage in self.middle:
            h = stage(h, embedding)
        return h, skips


class UNet(nn.Module):
    """Class-conditional noise predictor, NCHW."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.time = TimeEmbedding(shape.channels)
        self.classes = nn.Embedding(shape.num_classes, 4 * shape.channels)
        self.encoder = Encoder(shape)
        skips, width = list(self.encoder.skip_widths), self.encoder.width
        self.decoder = nn.ModuleList()
        for level, out_width in reversed(list(enumerate(shape.widths))):
            for number in range(shape.num_res_blocks + 1):
                attend = 2**level in shape.attention_downsamples
                stages = [Stage(shape, width + skips.pop(), out_width, attend=attend)]
                width = out_width
                if level and number == shape.num_res_blocks:
                    stages.append(Stage(shape, width, width, scale=2))
                self.decoder.append(nn.ModuleList(stages))
        self.out_norm = nn.GroupNorm(shape.groups, width)
        self.out_conv = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Predict eps."""
        embedding = self.time(t) + self.classes(labels)
        h, skips = self.encoder(x, embedding)
        for stages in self.decoder:
            h = torch.cat([h, skips.pop()], dim=1)
            for stage in stages:
                h = stage(h, embedding)
        return self.out_conv(functional.silu(self.out_norm(h)))


def parameter_count(network: nn.Module) -> int:
    """Trained numbers."""
    return sum(parameter.numel() for parameter in network.parameters())


def copy_parameters(network: UNet, flat: Mapping[str, np.ndarray]) -> None:
    """Take over the parameters of our network, given by name (``encoder.down.0.block.in_conv.kernel`` and the like).

    Raises:
        RuntimeError: the two networks do not have the same names and sizes.
    """
    own = network.state_dict()
    taken = {}
    for name, array in flat.items():
        stem, _, kind = name.rpartition(".")
        target = f"{stem}.{'bias' if kind == 'bias' else 'weight'}"
        if kind == "kernel":  # (*space, in, out) -> (out, in, *space)
            array = np.moveaxis(array, (-1, -2), (0, 1))
        if target not in own or own[target].numel() != array.size:
            raise RuntimeError(f"{name} has no counterpart {target} of its size")
        taken[target] = torch.tensor(array).reshape(own[target].shape)
    network.load_state_dict(taken, strict=True)


@dataclass(frozen=True)
class Mode:
    """How PyTorch is asked to work.

    Attributes:
        compiled: through ``torch.compile``.
        bfloat16: under autocast; parameters and optimiser stay float32.
        channels_last: NHWC in memory.
        fused: the optimiser's fused kernel.
    """

    compiled: bool = False
    bfloat16: bool = False
    channels_last: bool = False
    fused: bool = False

    @property
    def name(self) -> str:
        """For tables."""
        parts = {
            "compiled" if self.compiled else "eager": True,
            "bf16 autocast": self.bfloat16,
            "channels_last": self.channels_last,
            "fused Adam": self.fused,
        }
        return ", ".join(name for name, used in parts.items() if used)


def load(setting: Setting, mode: Mode | None = None) -> Calls:
    """A network with random parameters and batch on the best device there is, ready to be timed."""
    mode = mode or Mode()
    network = UNet(setting.shape)
    both = calls(setting, mode, network=network)
    start = time.perf_counter()
    if mode.compiled:
        both[FORWARD]()
        both[TRAIN_STEP]()
    seconds = time.perf_counter() - start if mode.compiled else 0.0
    return Calls(both[FORWARD], both[TRAIN_STEP], parameter_count(network), seconds)


def calls(
    setting: Setting,
    mode: Mode,
    *,
    network: UNet | None = None,
    before_running: Callable[[], None] = lambda: None,
) -> dict[str, Callable[[], None]]:
    """The forward pass and the train step, each of which compiles itself when first called.

    The train step does what ours does: pixels to [-1, 1], noise at random timesteps, some labels dropped, squared
    error of eps, Adam. ``before_running`` is called whenever something is compiled and about to use the device.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    network = (network or UNet(setting.shape)).to(device)
    if mode.channels_last:
        network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=mode.fused)
    images = torch.randint(0, 256, (setting.batch, 3, setting.px, setting.px), dtype=torch.uint8, device=device)
    labels = torch.arange(setting.batch, device=device) % (setting.shape.num_classes - 1)
    x = torch.randn(images.shape, device=device)
    alpha_bar = torch.cumprod(1 - torch.linspace(BETA_START, BETA_END, NOISE_STEPS, device=device), dim=0)

    def predict(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if mode.channels_last:
            x = x.to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=mode.bfloat16):
            return network(x, t, y)

    def loss_of(images: Tensor, labels: Tensor) -> Tensor:
        x_0 = images.float() / 127.5 - 1
        t = torch.randint(0, NOISE_STEPS, (len(images),), device=device)
        eps = torch.randn_like(x_0)
        signal = alpha_bar[t].reshape(-1, 1, 1, 1)
        kept = torch.rand(len(labels), device=device) >= LABEL_DROPOUT
        y = torch.where(kept, labels, setting.shape.num_classes - 1)
        x_t = signal.sqrt() * x_0 + (1 - signal).sqrt() * eps
        return functional.mse_loss(predict(x_t, t, y).float(), eps)

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable:
        with functorch_config.patch(_AT_ONCE):
            compiled = compile_fx(graph, inputs)
        before_running()
        return compiled

    run_predict = torch.compile(predict, dynamic=False, backend=backend) if mode.compiled else predict
    run_loss = torch.compile(loss_of, dynamic=False, backend=backend) if mode.compiled else loss_of
    if not mode.compiled:
        before_running()

    def forward() -> None:
        with torch.no_grad(), _finished(device):
            run_predict(x, labels, labels)

    def train_step() -> None:
        with _finished(device):
            optimizer.zero_grad(set_to_none=True)
            run_loss(images, labels).backward()
            optimizer.step()

    return {FORWARD: forward, TRAIN_STEP: train_step}


@contextmanager
def _finished(device: torch.device) -> Iterator[None]:
    """Leave when the device is done."""
    yield
    if device.type == "cuda":
        torch.cuda.synchronize()


def use_all_cores() -> None:
    """As many threads as there are cores: what XLA takes too."""
    torch.set_num_threads(measure.cores())


def forget_peak_memory() -> None:
    """Begin to watch memory anew."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """Most device memory in use since then; 0 without a GPU."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
