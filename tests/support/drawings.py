"""The ways in which fabs draw wafer maps, for tests and benchmarks: each turns a die grid into an image file."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Grid = NDArray[np.uint8]
Pixels = NDArray[np.uint8]
AnyPixels = TypeVar("AnyPixels", NDArray[np.uint8], NDArray[np.uint16])
Levels = NDArray[np.uint8] | NDArray[np.uint16]
Way = Callable[[Grid, np.random.Generator], bytes]

COLOUR_MAPS = (
    *("viridis", "plasma", "inferno", "magma", "cividis", "turbo", "jet", "gray", "gray_r", "hot", "coolwarm"),
    *("bwr", "RdYlGn", "RdYlGn_r", "Spectral", "rainbow", "Reds", "Blues", "YlOrRd", "tab10"),
)
SCHEMES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    "white, green, red": ((255, 255, 255), (0, 160, 0), (200, 0, 0)),
    "black, green, red": ((0, 0, 0), (0, 255, 0), (255, 0, 0)),
    "grey, green, red": ((128, 128, 128), (0, 128, 0), (255, 0, 0)),
    "navy, light green, tomato": ((16, 24, 64), (144, 238, 144), (255, 99, 71)),
    "white, light grey, black": ((255, 255, 255), (200, 200, 200), (0, 0, 0)),
    "white, blue, red": ((255, 255, 255), (31, 119, 180), (214, 39, 40)),
    "black, blue, yellow": ((0, 0, 0), (0, 0, 255), (255, 255, 0)),
    "white, yellow, purple": ((255, 255, 255), (255, 221, 0), (90, 0, 120)),
}
UNKNOWN_SCHEMES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int], tuple[int, int, int]]] = {
    "white, blue, yellow": ((255, 255, 255), (0, 0, 255), (255, 255, 0)),
    "white, dark blue, light grey": ((255, 255, 255), (0, 0, 139), (211, 211, 211)),
    "white, green, yellow": ((255, 255, 255), (0, 160, 0), (255, 255, 0)),
    "black, yellow, blue": ((0, 0, 0), (255, 255, 0), (0, 0, 255)),
    "white, orange, blue": ((255, 255, 255), (255, 165, 0), (0, 0, 255)),
    "light grey, teal, magenta": ((230, 230, 230), (0, 128, 128), (255, 0, 255)),
    "grey, white, black": ((128, 128, 128), (255, 255, 255), (0, 0, 0)),
    "white, red, blue": ((255, 255, 255), (220, 20, 20), (20, 20, 220)),
}
"""Outside, passed, failed in colours that say nothing, or the contrary of what luminance says."""
MASKED = (
    "viridis",
    "cividis",
    "plasma",
    "inferno",
    "magma",
    "jet",
    "coolwarm",
    "turbo",
    "Reds",
    "RdYlGn",
    "tab10",
    "Set1",
)
BILINEAR, BICUBIC, LANCZOS, NEAREST = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
    Image.Resampling.LANCZOS,
    Image.Resampling.NEAREST,
)


def grey(grid: Grid, failed: int = 255) -> Pixels:
    return np.array([0, 127, failed], np.uint8)[grid]


def coloured(grid: Grid, name: str) -> Pixels:
    table = matplotlib.colormaps[name](np.array([0.0, 0.5, 1.0]), bytes=True)[:, :3]
    return np.asarray(table, np.uint8)[grid]


def scheme(grid: Grid, name: str) -> Pixels:
    return np.array((SCHEMES | UNKNOWN_SCHEMES)[name], np.uint8)[grid]


def masked(grid: Grid, name: str, passed: float = 0.0) -> Pixels:
    """What a notebook draws of an array whose zeros are masked, on a white figure."""
    table = np.full((3, 3), 255, np.uint8)
    table[1:] = matplotlib.colormaps[name](np.array([passed, 1.0]), bytes=True)[:, :3]
    return table[grid]


def binned(grid: Grid, rng: np.random.Generator, bins: int, name: str) -> Pixels:
    """Failed dies in the colours of several bins, which differ from one part of the wafer to the other, on white."""
    where = np.add.outer(np.arange(grid.shape[0]) // 7, np.arange(grid.shape[1]) // 5)
    bin_of = np.where(rng.random(grid.shape) < 0.3, rng.integers(0, bins, grid.shape), where % bins)
    table = np.asarray(matplotlib.colormaps[name](np.linspace(0, 1, bins + 1), bytes=True)[:, :3], np.uint8)
    pixels = np.where((grid == 2)[..., None], table[1:][bin_of], table[0])
    return np.where((grid == 0)[..., None], 255, pixels).astype(np.uint8)


def enlarged(pixels: AnyPixels, times: int) -> AnyPixels:
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def framed(pixels: Pixels, rng: np.random.Generator, most: int = 60) -> Pixels:
    """Add margins of random widths in the colour of the top left corner, which is outside every wafer here."""
    top, bottom, left, right = (int(n) for n in rng.integers(0, most + 1, 4))
    shape = (top + pixels.shape[0] + bottom, left + pixels.shape[1] + right, *pixels.shape[2:])
    out = np.empty(shape, np.uint8)
    out[:] = pixels[0, 0]
    out[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return out


def file(image: Image.Image | Levels, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    if kind == "PNG":
        options = {"compress_level": 1, **options}
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def resized(pixels: Pixels, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return Image.fromarray(pixels).resize(size, how)


def _some(rng: np.random.Generator, least: int, most: int) -> int:
    return int(rng.integers(least, most + 1))


def _fit(grid: Grid, longest: int) -> tuple[int, int]:
    ratio = longest / max(grid.shape)
    return max(1, round(grid.shape[1] * ratio)), max(1, round(grid.shape[0] * ratio))


def _palette(grid: Grid, rng: np.random.Generator) -> bytes:
    image = Image.fromarray(enlarged(grid, _some(rng, 1, 6)))
    image.putpalette([channel for colour in SCHEMES["white, green, red"] for channel in colour])
    return file(image)


def _transparent(grid: Grid, rng: np.random.Generator) -> bytes:
    pixels = enlarged(coloured(grid, "viridis"), _some(rng, 1, 6))
    alpha = np.where(enlarged(grid, pixels.shape[0] // grid.shape[0]) > 0, 255, 0).astype(np.uint8)
    pixels = np.where(alpha[..., None] > 0, pixels, 0).astype(np.uint8)
    return file(np.dstack([pixels, alpha]))


def _rgba(grid: Grid, rng: np.random.Generator) -> bytes:
    pixels = enlarged(coloured(grid, "viridis"), _some(rng, 1, 6))
    return file(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]))


def _jpeg(quality: int, subsampling: int, least: int, most: int, colours: str | None) -> Way:
    def draw(grid: Grid, rng: np.random.Generator) -> bytes:
        pixels = grey(grid) if colours is None else coloured(grid, colours)
        return file(enlarged(pixels, _some(rng, least, most)), "JPEG", quality=quality, subsampling=subsampling)

    return draw


def _smooth(size: int, how: Image.Resampling, colours: str | None = None, kind: str = "PNG", **options: Any) -> Way:
    def draw(grid: Grid, rng: np.random.Generator) -> bytes:
        pixels = grey(grid) if colours is None else coloured(grid, colours)
        return file(resized(pixels, (size, size), how), kind, **options)

    return draw


def _smooth_scheme(name: str) -> Way:
    return lambda grid, rng: file(resized(scheme(grid, name), (224, 224), BILINEAR))


def _colour_map(name: str) -> Way:
    return lambda grid, rng: file(enlarged(coloured(grid, name), _some(rng, 1, 6)))


def _scheme(name: str) -> Way:
    return lambda grid, rng: file(enlarged(scheme(grid, name), _some(rng, 1, 6)))


def _masked(name: str, passed: float = 0.0) -> Way:
    return lambda grid, rng: file(enlarged(masked(grid, name, passed), _some(rng, 1, 6)))


def _masked_transparent(grid: Grid, rng: np.random.Generator) -> bytes:
    times = _some(rng, 1, 6)
    alpha = enlarged(np.where(grid == 0, 0, 255).astype(np.uint8), times)
    return file(np.dstack([enlarged(masked(grid, "viridis"), times), alpha]))


def _binned(bins: int, name: str) -> Way:
    return lambda grid, rng: file(enlarged(binned(grid, rng, bins, name), _some(rng, 1, 6)))


def _two(pixels: Callable[[Grid], Pixels], least: int, most: int) -> Way:
    return lambda grid, rng: file(enlarged(pixels(grid), _some(rng, least, most)))


def failed_only(grid: Grid, failed: int = 255) -> Pixels:
    return np.where(grid == 2, failed, 0).astype(np.uint8)


def _red_on_white(grid: Grid) -> Pixels:
    return np.array([(255, 255, 255), (255, 255, 255), (220, 20, 20)], np.uint8)[grid]


WAYS: dict[str, Way] = {
    "native 0/127/255": lambda grid, rng: file(grey(grid)),
    "native 0/127/254": lambda grid, rng: file(grey(grid, 254)),
    "native 0/1/2": lambda grid, rng: file(grid),
    "enlarged 0/127/255": lambda grid, rng: file(enlarged(grey(grid), _some(rng, 2, 10))),
    "enlarged 0/1/2": lambda grid, rng: file(enlarged(grid, _some(rng, 2, 10))),
    "RGB grey": lambda grid, rng: file(np.dstack([enlarged(grey(grid), _some(rng, 1, 6))] * 3)),
    "RGBA": _rgba,
    "transparent outside": _transparent,
    "palette": _palette,
    "margins": lambda grid, rng: file(framed(enlarged(grey(grid), _some(rng, 1, 6)), rng)),
    "margins, viridis": lambda grid, rng: file(framed(enlarged(coloured(grid, "viridis"), _some(rng, 1, 6)), rng)),
    **{f"colour map {name}": _colour_map(name) for name in COLOUR_MAPS},
    **{f"colours {name}": _scheme(name) for name in SCHEMES},
    **{f"colours {name}": _scheme(name) for name in UNKNOWN_SCHEMES},
    **{f"masked {name}": _masked(name) for name in MASKED},
    "masked viridis, from its half": _masked("viridis", 0.5),
    "masked viridis, transparent": _masked_transparent,
    **{f"{bins} bins {name}": _binned(bins, name) for bins in (2, 3, 5, 8, 12) for name in ("tab20", "viridis")},
    "5 bins tab10, JPEG 90": lambda grid, rng: file(
        enlarged(binned(grid, rng, 5, "tab10"), _some(rng, 4, 8)), "JPEG", quality=90
    ),
    "5 bins tab10, 224 bilinear": lambda grid, rng: file(resized(binned(grid, rng, 5, "tab10"), (224, 224), BILINEAR)),
    "values 0/1/2/3": lambda grid, rng: file(np.where((grid == 1) & (rng.random(grid.shape) < 0.01), 3, grid)),
    "16 bits 0/256/511": lambda grid, rng: file(np.array([0, 256, 511], np.uint16)[grid]),
    "16 bits 0/2000/4095": lambda grid, rng: file(enlarged(np.array([0, 2000, 4095], np.uint16)[grid], 3)),
    "224 bilinear masked viridis": lambda grid, rng: file(resized(masked(grid, "viridis"), (224, 224), BILINEAR)),
    "224 bilinear white, blue, yellow": _smooth_scheme("white, blue, yellow"),
    "JPEG masked cividis 85": lambda grid, rng: file(
        enlarged(masked(grid, "cividis"), _some(rng, 4, 8)), "JPEG", quality=85
    ),
    "JPEG grey 95, native": _jpeg(95, 0, 1, 1, None),
    "JPEG grey 75, native": _jpeg(75, 0, 1, 1, None),
    "JPEG grey 75, enlarged": _jpeg(75, 0, 2, 8, None),
    "JPEG viridis 90 4:4:4": _jpeg(90, 0, 2, 8, "viridis"),
    "JPEG viridis 75 4:2:0": _jpeg(75, 2, 2, 8, "viridis"),
    "JPEG jet 75 4:2:0": _jpeg(75, 2, 4, 8, "jet"),
    "JPEG green/red 85 4:2:0": lambda grid, rng: file(
        enlarged(scheme(grid, "white, green, red"), _some(rng, 4, 8)), "JPEG", quality=85
    ),
    "224 nearest": _smooth(224, NEAREST),
    "224 bilinear": _smooth(224, BILINEAR),
    "224 bicubic": _smooth(224, BICUBIC),
    "224 lanczos": _smooth(224, LANCZOS),
    "224 bilinear 0/127/254": lambda grid, rng: file(resized(grey(grid, 254), (224, 224), BILINEAR)),
    "128 bilinear": _smooth(128, BILINEAR),
    "256 bilinear": _smooth(256, BILINEAR),
    "512 bilinear": _smooth(512, BILINEAR),
    "512 nearest": _smooth(512, NEAREST),
    "longest 300 bicubic": lambda grid, rng: file(resized(grey(grid), _fit(grid, 300), BICUBIC)),
    "224 bilinear viridis": _smooth(224, BILINEAR, "viridis"),
    "224 bilinear jet": _smooth(224, BILINEAR, "jet"),
    "224 bilinear coolwarm": _smooth(224, BILINEAR, "coolwarm"),
    "224 bilinear green/red": _smooth_scheme("white, green, red"),
    "224 bilinear JPEG 75": _smooth(224, BILINEAR, None, "JPEG", quality=75),
    "224 bilinear viridis JPEG 75": _smooth(224, BILINEAR, "viridis", "JPEG", quality=75),
    "224 bilinear, margins": lambda grid, rng: file(framed(np.asarray(resized(grey(grid), (224, 224), BILINEAR)), rng)),
    "margins, then 224 bilinear": lambda grid, rng: file(resized(framed(grey(grid), rng, 8), (224, 224), BILINEAR)),
    "two values 0/255": _two(failed_only, 1, 1),
    "two values 0/255, enlarged": _two(failed_only, 2, 8),
    "two values 0/1": _two(lambda grid: failed_only(grid, 1), 1, 1),
    "two values red on white": _two(_red_on_white, 1, 6),
    "two values, one bit": lambda grid, rng: file(Image.fromarray(failed_only(grid)).convert("1")),
    "two values, 224 nearest": lambda grid, rng: file(resized(failed_only(grid), (224, 224), NEAREST)),
    "two values, 224 bilinear": lambda grid, rng: file(resized(failed_only(grid), (224, 224), BILINEAR)),
    "two values, JPEG 90": lambda grid, rng: file(enlarged(failed_only(grid), _some(rng, 2, 8)), "JPEG", quality=90),
}

IN_DOUBT = frozenset(
    way
    for way in WAYS
    if "bins" in way
    or way in ("values 0/1/2/3", "masked RdYlGn", "masked Set1")
    or way.removeprefix("colours ") in (*UNKNOWN_SCHEMES, "black, blue, yellow", "white, yellow, purple")
    or "white, blue, yellow" in way
)
"""Ways whose colours do not tell what passed and what failed: read as best one can, and with a doubt."""


def deep_colours(levels: NDArray[np.uint16]) -> bytes:
    """A PNG with three channels of 16 bits, which Pillow does not write."""
    lines = b"".join(b"\0" + line.astype(">u2").repeat(3).tobytes() for line in levels)
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
