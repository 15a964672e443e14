"""The network: a small residual net that ends in global average pooling and one linear layer.

The end makes the class activation map exact (Zhou et al., "Learning Deep Features for Discriminative Localization",
CVPR 2016): a class's logit is its bias plus the mean of its map.
"""

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from fabwafer.maps.scaling import CHANNELS


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a network: channels of each stage (each halves the map's side) and residual blocks in a stage."""

    widths: tuple[int, ...] = (32, 64, 128)
    blocks: int = 2


class Block(nn.Module):
    """Two 3x3 convolutions around which the input is added (He et al., CVPR 2016)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(channels_out)
        self.second = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(channels_out)
        self.around: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.around = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Map [n, channels_in, h, w] to [n, channels_out, h / stride, w / stride]."""
        inner = functional.relu(self.first_norm(self.first(maps)))
        return functional.relu(self.second_norm(self.second(inner)) + self.around(maps))


class PooledNet(nn.Module):
    """A network that ends in global average pooling and one linear layer.

    Args:
        stem: From scaled wafer maps [n, channels, size, size] to feature maps.
        stages: From feature maps to feature maps of `embedding` channels.
        embedding: Channels of the last feature maps.
        classes: How many classes there are.
    """

    def __init__(self, stem: nn.Sequential, stages: nn.Sequential, embedding: int, classes: int) -> None:
        super().__init__()
        self.stem = stem
        self.stages = stages
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(embedding, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, maps: Tensor) -> Tensor:
        """Map scaled wafer maps [n, channels, size, size] to the last feature maps [n, embedding, h, w]."""
        return cast("Tensor", self.stages(self.stem(maps)))

    def forward(self, maps: Tensor) -> Tensor:
        """Map scaled wafer maps [n, channels, size, size] to logits [n, classes]."""
        embedding = self.features(maps).mean(dim=(2, 3))
        return cast("Tensor", self.head(self.dropout(embedding)))


class WaferNet(PooledNet):
    """A residual net over scaled wafer maps.

    The first convolution (5x5, stride 2) halves the side at once, which keeps the work on the full side small; each
    later stage halves it again.
    """

    def __init__(self, classes: int, shape: Shape) -> None:
        first = shape.widths[0]
        stem = nn.Sequential(
            nn.Conv2d(CHANNELS, first, 5, 2, 2, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True)
        )
        super().__init__(stem, residual_stages(first, shape), shape.widths[-1], classes)


def residual_stages(channels: int, shape: Shape) -> nn.Sequential:
    """Return residual stages over feature maps of `channels` channels; each but the first halves the side."""
    blocks: list[nn.Module] = []
    for number, width in enumerate(shape.widths):
        for block in range(shape.blocks):
            blocks.append(Block(channels, width, 2 if number > 0 and block == 0 else 1))
            channels = width
    return nn.Sequential(*blocks)


class Exported(nn.Module):
    """What is exported: logits, embedding and the class activation maps from one pass."""

    def __init__(self, network: PooledNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map scaled maps to logits [n, classes], embedding [n, d] and class activation maps [n, classes, h, w].

        The mean of a class's activation map plus the class's bias is its logit.
        """
        features = self.network.features(maps)
        embedding = features.mean(dim=(2, 3))
        head = self.network.head
        activations = functional.conv2d(features, head.weight[:, :, None, None])
        return head(embedding), embedding, activations


def parameters(network: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())


def widths_of(text: str) -> tuple[int, ...]:
    """Read stage widths written as `32,64,128`.

    Raises:
        ValueError: They are not.
    """
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"expected the channels of each stage, such as 32,64,128, got {text!r}")
    return tuple(map(int, parts))
