"""Makes authors.npz: the paper's smaller UNet, written down in PyTorch's functions from its description.

In a Python of its own: ``pip install torch``, then in ``tests/``: ``python -m golden.make_authors``.

The description is the one in ``diffpath_jax/networks/unet_authors.py``; parameters have the names of our tree. In
double precision; results are stored in single.
"""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from golden import weights
from torch import Tensor

BASE, MULT, ATTENTION, HEADS, GROUPS, CLASSES = 16, (1, 2), (1,), 4, 8, 3


class Parameters:
    """Named weights, made when first asked for."""

    def __init__(self) -> None:
        self.made: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        if name not in self.made:
            self.made[name] = torch.from_numpy(weights.weight(name, shape)).double().requires_grad_()
        assert self.made[name].shape == shape, name
        return self.made[name]

    def conv(self, name: str, x: Tensor, out: int, *, stride: int = 1) -> Tensor:
        kernel, bias = self(f"{name}.weight", out, x.shape[1], 3, 3), self(f"{name}.bias", out)
        return F.conv2d(x, kernel, bias, stride=stride, padding=1)

    def pointwise(self, name: str, x: Tensor, out: int) -> Tensor:
        kernel, bias = self(f"{name}.weight", out, x.shape[1], 1, 1), self(f"{name}.bias", out)
        return F.conv2d(x, kernel, bias)

    def dense(self, name: str, x: Tensor, out: int) -> Tensor:
        return F.linear(x, self(f"{name}.weight", out, x.shape[-1]), self(f"{name}.bias", out))

    def norm(self, name: str, x: Tensor) -> Tensor:
        channels = x.shape[1]
        return F.group_norm(x, GROUPS, self(f"{name}.weight", channels), self(f"{name}.bias", channels))


def block(p: Parameters, name: str, x: Tensor, embedding: Tensor, out: int) -> Tensor:
    h = F.silu(p.norm(f"{name}.in_norm", p.conv(f"{name}.in_conv", x, out)))
    h = h + p.dense(f"{name}.condition", F.silu(embedding), out)[:, :, None, None]
    h = F.silu(p.norm(f"{name}.out_norm", p.conv(f"{name}.out_conv", h, out)))
    return h + (x if x.shape[1] == out else p.pointwise(f"{name}.skip", x, out))


def attention(p: Parameters, name: str, x: Tensor) -> Tensor:
    tokens = x.flatten(2).transpose(1, 2)
    channels = tokens.shape[-1]
    parts = (p.dense(f"{name}.{part}", tokens, channels) for part in ("query", "key", "value"))
    q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    total = tokens + p.dense(f"{name}.out", mixed, channels)
    return p.norm(f"{name}.norm", total.transpose(1, 2).unflatten(-1, x.shape[2:]))


def level(p: Parameters, name: str, x: Tensor, embedding: Tensor, out: int, attend: bool, resampling: str) -> Tensor:
    for i in range(2):
        x = block(p, f"{name}.blocks.{i}", x, embedding, out)
        if attend:
            x = attention(p, f"{name}.attentions.{i}", x)
    if resampling == "down":
        return p.conv(f"{name}.conv", x, out, stride=2)
    if resampling == "up":
        return p.conv(f"{name}.conv", F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), out)
    return x


def sinusoids(t: Tensor) -> Tensor:
    """Sine and cosine of each frequency side by side."""
    out = torch.empty(len(t), BASE, dtype=torch.float64)
    for i in range(BASE // 2):
        angle = t * math.exp(-math.log(10_000) * 2 * i / BASE)
        out[:, 2 * i], out[:, 2 * i + 1] = torch.sin(angle), torch.cos(angle)
    return out


def unet(p: Parameters, x: Tensor, t: Tensor, labels: Tensor, rows: int) -> Tensor:
    """A label of ``rows`` is the null class without a row: nothing is added."""
    embedding = p.dense("time_out", F.gelu(p.dense("time_in", sinusoids(t), 4 * BASE)), 4 * BASE)
    table = p("classes.weight", rows, 4 * BASE)
    embedding = embedding + F.pad(table, (0, 0, 0, 1))[labels]
    widths = [BASE * mult for mult in MULT]
    h = p.conv("stem", x, BASE)
    skips = [h]
    for i, width in enumerate(widths):
        h = level(p, f"down.{i}", h, embedding, width, i in ATTENTION, "down")
        skips.append(h)
    h = level(p, "middle", h, embedding, widths[-1], True, "none")
    for number, i in enumerate(reversed(range(len(widths)))):
        h = torch.cat([h, skips.pop()], dim=1)
        h = level(p, f"up.{number}", h, embedding, widths[i], i in ATTENTION, "up")
    h = torch.cat([h, skips.pop()], dim=1)
    return p.conv("out_conv", F.silu(p.norm("out_norm", h)), 3)


def main() -> None:
    arrays = {}
    for case, rows in (("no_row", CLASSES), ("null_row", CLASSES + 1)):
        p = Parameters()
        shape = (2, 16, 8, 3)
        x = torch.from_numpy(weights.normal(f"authors {case} x", shape)).double().movedim(-1, 1)
        out = unet(p, x, torch.tensor([5, 640]), torch.tensor([1, CLASSES]), rows)
        cotangent = torch.from_numpy(weights.normal(f"authors {case} cotangent", shape)).double().movedim(-1, 1)
        (out * cotangent).mean().backward()
        arrays[f"{case}/names"] = weights.listing({name: value.shape for name, value in p.made.items()})
        arrays[f"{case}/out"] = out.detach().movedim(1, -1).numpy().astype(np.float32)
        arrays[f"{case}/norms"] = np.array([float(value.grad.norm()) for value in p.made.values()])
    path = Path(__file__).parent / "authors.npz"
    np.savez_compressed(path, **arrays)
    print(path.name, path.stat().st_size, [float(arrays[f"{case}/out"].std()) for case in ("no_row", "null_row")])


if __name__ == "__main__":
    main()
