"""The network: a small residual net that ends in global average pooling and one linear layer.

The end makes the class activation map exact (Zhou et al., "Learning Deep Features for Discriminative Localization",
CVPR 2016): a class's logit is its bias plus the mean of its map.
"""

from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from fabwafer.maps.scaling import CHANNELS

PYRAMID_STAGES = 3
"""How many stages, counted from the last, a pyramid sums."""

EXCITED_STAGES = 2
"""In how many stages, counted from the last, blocks weigh their channels; on the large maps of the first it is slow."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a network.

    Attributes:
        widths: Channels of each stage; each but the first halves the side of its feature maps.
        blocks: Residual blocks in a stage.
        excitation: Whether each block weighs its channels (squeeze and excitation).
        pyramid: Whether the last three stages are summed at the side of the first of them, 16 x 16 cells for four
            stages, instead of the last stage's alone.
        patterns: Whether a second linear layer names each of several patterns on one wafer.
    """

    widths: tuple[int, ...] = (32, 64, 128)
    blocks: int = 2
    excitation: bool = False
    pyramid: bool = False
    patterns: bool = False

    def __post_init__(self) -> None:
        if self.pyramid and len(self.widths) < PYRAMID_STAGES:
            raise ValueError(f"a pyramid sums {PYRAMID_STAGES} stages, expected as many widths, got {self.widths}")


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


class Excitation(nn.Module):
    """Squeeze and excitation: weighs each channel by the means of all of them (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, inner: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, inner, 1), activation(), nn.Conv2d(inner, channels, 1)
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map [n, channels, h, w] to as many of the same shape."""
        out: Tensor = maps * self.weigh(maps).sigmoid()
        return out


class ExcitedBlock(nn.Module):
    """A residual block whose way around skips nothing, with or without squeeze and excitation.

    Where the side is halved, the convolution around is 2x2, not 1x1 at every second cell (after He et al., "Bag of
    Tricks for Image Classification", CVPR 2019, who average before a 1x1 convolution: the same in one step).
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int, *, excitation: bool = True) -> None:
        super().__init__()
        layers = [
            *convolution(channels_in, channels_out, 3, stride),
            nn.ReLU(inplace=True),
            *convolution(channels_out, channels_out, 3),
        ]
        self.inner = nn.Sequential(*layers, *([Excitation(channels_out, channels_out // 4)] if excitation else []))
        self.around: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.around = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, stride, stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Map [n, channels_in, h, w] to [n, channels_out, h / stride, w / stride]."""
        return functional.relu(self.inner(maps) + self.around(maps))


class Pyramid(nn.Module):
    """Sums feature maps of several sizes at the largest one (Lin et al., "Feature Pyramid Networks", CVPR 2017).

    Args:
        widths: Channels of each, largest maps first; each further one has half the side. All are brought to the last
            one's channels.
    """

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        channels = widths[-1]
        self.lateral = nn.ModuleList(nn.Sequential(*convolution(width, channels, 1)) for width in widths)
        self.smooth = nn.Sequential(*convolution(channels, channels, 3, groups=channels), nn.ReLU(inplace=True))

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map feature maps [n, width, h, w], [n, width, h / 2, w / 2] ... to [n, channels, h, w]."""
        total = self.lateral[-1](maps[-1])
        for lateral, larger in zip(reversed(self.lateral[:-1]), reversed(maps[:-1]), strict=True):
            total = lateral(larger) + functional.interpolate(total, scale_factor=2.0, mode="nearest")
        return cast("Tensor", self.smooth(total))


def convolution(channels_in: int, channels_out: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Return a convolution without bias and the norm that follows it."""
    return [
        nn.Conv2d(channels_in, channels_out, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(channels_out),
    ]


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
        self.patterns: nn.Linear | None = None
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
        stem = nn.Sequential(*convolution(CHANNELS, first, 5, 2), nn.ReLU(inplace=True))
        super().__init__(stem, residual_stages(first, shape), shape.widths[-1], classes)
        self.shape = shape
        self.pyramid = Pyramid(shape.widths[-PYRAMID_STAGES:]) if shape.pyramid else None
        if shape.patterns:
            self.patterns = nn.Linear(shape.widths[-1], classes)

    def features(self, maps: Tensor) -> Tensor:
        """Map scaled wafer maps [n, channels, size, size] to the last feature maps [n, embedding, h, w]."""
        if self.pyramid is None:
            return super().features(maps)
        maps, levels = self.stem(maps), []
        for number, block in enumerate(self.stages, 1):
            maps = block(maps)
            if number % self.shape.blocks == 0:
                levels.append(maps)
        return cast("Tensor", self.pyramid(levels[-PYRAMID_STAGES:]))

    def both(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Map scaled wafer maps to logits of the one class and of each pattern, [n, classes] twice.

        Raises:
            ValueError: The network's shape has no patterns.
        """
        if self.patterns is None:
            raise ValueError("the network has no layer that names several patterns")
        embedding = self.dropout(self.features(maps).mean(dim=(2, 3)))
        return self.head(embedding), self.patterns(embedding)


def residual_stages(channels: int, shape: Shape) -> nn.Sequential:
    """Return residual stages over feature maps of `channels` channels; each but the first halves the side."""
    blocks: list[nn.Module] = []
    for number, width in enumerate(shape.widths):
        for block in range(shape.blocks):
            stride = 2 if number > 0 and block == 0 else 1
            if shape.excitation:
                excited = number >= len(shape.widths) - EXCITED_STAGES
                blocks.append(ExcitedBlock(channels, width, stride, excitation=excited))
            else:
                blocks.append(Block(channels, width, stride))
            channels = width
    return nn.Sequential(*blocks)


class Exported(nn.Module):
    """What is exported: logits, embedding and the class activation maps from one pass."""

    def __init__(self, network: PooledNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, maps: Tensor) -> tuple[Tensor, ...]:
        """Map scaled maps to logits [n, classes], embedding [n, d] and class activation maps [n, classes, h, w].

        The mean of a class's activation map plus the class's bias is its logit. A network with `patterns` gives their
        logits as well, [n, classes].
        """
        features = self.network.features(maps)
        embedding = features.mean(dim=(2, 3))
        head = self.network.head
        activations = functional.conv2d(features, head.weight[:, :, None, None])
        outputs = head(embedding), embedding, activations
        patterns = self.network.patterns
        return outputs if patterns is None else (*outputs, patterns(embedding))


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
