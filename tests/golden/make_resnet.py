"""Makes resnet.npz from ResNet-50 written down in PyTorch as its paper and torchvision's description have it.

In a Python with PyTorch, in ``tests/``: ``python -m golden.make_resnet``.

He et al. 2016, table 1 and section 3.4, with the stride in the 3x3 convolution ("v1.5"), names as torchvision gives
them. It is run in double precision on named weights; results are stored in single. Of the running statistics after a
step in training some layers are kept. Gradients are those of one block: of the whole network PyTorch's own in single
precision differ by 2 % from those in double, as a rounding decides which of a million ReLUs let through.
"""

from pathlib import Path

import numpy as np
import torch
from golden import weights
from torch import nn

OUT = Path(__file__).parent / "resnet.npz"
CLASSES, SIDE, BATCH = 1000, 75, 3
KEPT_NORMS = ("bn1", "layer1.0.bn2", "layer2.0.downsample.1", "layer3.5.bn3", "layer4.2.bn3")
BLOCK, BLOCK_SHAPE = "layer2.0", (2, 6, 6, 256)


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            conv = nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(conv, nn.BatchNorm2d(4 * width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = torch.relu(self.bn1(self.conv1(x)))
        out = torch.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


class ResNet50(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for number, blocks in enumerate((3, 4, 6, 3), start=1):
            width, layers = 64 * 2 ** (number - 1), []
            for block in range(blocks):
                layers.append(Bottleneck(channels, width, 2 if number > 1 and block == 0 else 1))
                channels = 4 * width
            setattr(self, f"layer{number}", nn.Sequential(*layers))
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        features = x.mean(dim=(2, 3))
        return self.fc(features), features


def network() -> tuple[ResNet50, np.ndarray]:
    """With named weights, in double precision, and their listing."""
    module = ResNet50().double()
    shapes = {name: tuple(array.shape) for name, array in module.state_dict().items() if array.ndim}
    drawn = {name: torch.from_numpy(weights.weight(name, shape)) for name, shape in shapes.items()}
    module.load_state_dict(drawn, strict=False)
    return module, weights.listing(shapes)


def single(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy().astype(np.float32)


def block(module: ResNet50) -> dict[str, np.ndarray]:
    """Some channels of one block's output in training, and gradients of its product with a fixed array."""
    own = module.get_submodule(BLOCK).train()
    x = torch.from_numpy(weights.normal("resnet block", BLOCK_SHAPE)).double().movedim(-1, 1).requires_grad_()
    out = own(x)
    cotangent = torch.from_numpy(weights.normal("resnet cotangent", (2, 3, 3, 512))).double().movedim(-1, 1)
    (out * cotangent).sum().backward()
    gradients = {f"gradient/{name}": single(p.grad) for name, p in own.named_parameters() if p.ndim == 1}
    images = {"block": out, "gradient/x": x.grad}
    return {**{name: single(array.movedim(1, -1))[..., ::8] for name, array in images.items()}, **gradients}


def main() -> None:
    module, names = network()
    x = torch.from_numpy(weights.normal("resnet images", (BATCH, SIDE, SIDE, 3))).double().movedim(-1, 1)
    kept = {"names": names, "parameters": np.array(sum(p.numel() for p in module.parameters()))}
    with torch.no_grad():
        logits, features = module.eval()(x)
        kept |= {"eval/logits": single(logits), "eval/features": single(features)}
        logits, features = module.train()(x)
    kept |= {"train/logits": single(logits), "train/features": single(features)}
    state = module.state_dict()
    for name in KEPT_NORMS:
        for kind in ("running_mean", "running_var"):
            kept[f"running/{name}.{kind}"] = single(state[f"{name}.{kind}"])
    kept |= block(module)
    np.savez_compressed(OUT, **kept)
    print(OUT.stat().st_size, {name: float(v.std()) for name, v in kept.items() if v.dtype.kind == "f"})


if __name__ == "__main__":
    main()
