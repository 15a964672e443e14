"""Reading a die grid from a drawing of a wafer map.

A drawing in a few flat colours is read exactly. Any other (JPEG, smoothed by resizing) is read by finding the lattice
of dies, sampling each die's middle, and snapping the samples to the main colours. Either way the grid must then look
like a wafer: what else is drawn in few colours (logos, charts, text, codes) differs in outline, lattice or grain.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from fabwafer import lattice, palette
from fabwafer.palette import Colour

Grid = NDArray[np.uint8]
Pixels = NDArray[np.uint8]

_LEAST_DIES = 8
_UNKNOWN = 0.0  # the pitch of a drawing whose lattice was not found: each pixel is read as a die
_EIGHT_NEIGHBOURS = np.ones((3, 3), np.uint8)
_RAW = np.full(256, 3, np.uint8)
_RAW[[0, 1, 2]] = 0, 1, 2
_NATIVE = np.full(256, 3, np.uint8)
_NATIVE[[0, 127, 128, 254, 255]] = 0, 1, 1, 2, 2

_LARGE = 1.9  # pixels a die from which on a lattice is found without doubt
_MISFIT_LARGE = 0.06  # dies of five pixels and more: real maps reach 0.055 under JPEG, other pictures have 0.06 to 0.1
_WAYS = (Image.Resampling.NEAREST, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
# Weights that no two usual colours share: equal luminance must not hide an edge.
_MIX = np.array([0.4, 0.35, 0.25], np.float32)


class NotAWaferMapError(ValueError):
    """A fine picture, but not of a wafer map; the message says why not."""


def read(image: Image.Image) -> Grid:
    """Read the die grid from a decoded image.

    Args:
        image: any mode that a PNG or JPEG file decodes to.

    Returns:
        uint8 [rows, columns]: 0 outside, 1 passed, 2 failed, margins cut off.

    Raises:
        NotAWaferMapError: the picture is not of a wafer map.
    """
    pixels = _pixels(image)
    flat = _flat(pixels)
    if flat is not None:
        return np.ascontiguousarray(_read_flat(*flat))
    # JPEG keeps luminance sharper than colour.
    weights = palette.LUMA if image.format == "JPEG" else _MIX
    grid = _read_smoothed(pixels, weights)
    return np.ascontiguousarray(grid)


# -- pixels and colours ----------------------------------------------------------------------------------------------


def _pixels(image: Image.Image) -> Pixels:
    """The image as uint8 [height, width] where it is grey, else [height, width, 3]."""
    if image.mode == "1":
        image = image.convert("L")
    if image.mode == "L" and "transparency" not in image.info:
        return np.asarray(image)
    if image.mode.startswith("I"):  # 16-bit grey
        wide = np.asarray(image)
        return (wide >> 8 if wide.max() > 255 else wide).astype(np.uint8)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return _opaque(np.asarray(image.convert("RGBA")))
    pixels = np.asarray(image.convert("RGB"))
    first = pixels[..., 0]
    if np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2]):
        return first
    return pixels


def _opaque(pixels: Pixels) -> Pixels:
    """Give all transparent pixels one colour that nothing visible has: their own, else black, white or magenta."""
    hidden = pixels[..., 3] < 128
    colours = pixels[..., :3]
    if not hidden.any():
        return colours
    visible = colours[~hidden][::7].astype(np.int64)
    own = np.median(colours[hidden], axis=0)
    for colour in (own, (0, 0, 0), (255, 255, 255), (255, 0, 255)):
        if visible.size == 0 or np.abs(visible - np.asarray(colour)).max(axis=1).min() > 60:
            break
    return np.where(hidden[..., None], np.asarray(colour, np.uint8), colours)


def _flat(pixels: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    """Number the colours of a drawing that has at most four.

    Returns:
        (number of each pixel's colour, uint8 [height, width]; the colours, uint8 [k, 3]), or None if there are more.
    """
    if pixels.ndim == 2:
        present = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256))
        if present.size > 4:
            return None
        numbers = np.zeros(256, np.uint8)
        numbers[present] = np.arange(present.size)
        return numbers[pixels], np.repeat(present.astype(np.uint8)[:, None], 3, axis=1)
    packed = pixels.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    labels = np.zeros(packed.shape, np.uint8)
    colours: list[int] = []
    left = np.ones(packed.shape, np.bool_)
    for number in range(4):
        colours.append(int(packed.flat[int(left.argmax())]))
        found = packed == colours[-1]
        labels[found] = number
        left &= ~found
        if not left.any():
            return labels, np.array([list(colour.to_bytes(3, "big")) for colour in colours], np.uint8)
    return None


def _border(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])


def _box(inside: NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


# -- drawings in a few flat colours ----------------------------------------------------------------------------------


def _read_flat(labels: NDArray[np.uint8], colours: NDArray[np.uint8]) -> Grid:
    if len(colours) < 2:
        raise NotAWaferMapError("expected a wafer map, got a picture in a single colour")
    outside = int(np.bincount(_border(labels)).argmax())
    if len(colours) == 4:
        # A margin in a colour of its own, around the picture of the wafer with its outside.
        inner = labels[_box(labels != outside)]
        if (inner == outside).any():
            raise NotAWaferMapError("expected a wafer map in two or three colours, got a picture in four")
        kept = [number for number in range(4) if number != outside]
        renumbered = np.zeros(4, np.uint8)
        renumbered[kept] = np.arange(3)
        return _read_flat(renumbered[inner], colours[kept])
    grey = bool((colours == colours[:, :1]).all())
    for known in (_RAW, _NATIVE) if grey else ():
        meaning = known[colours[:, 0]]
        if meaning.max() > 2 or (0 in meaning and meaning[outside] != 0):
            continue
        if np.unique(meaning).size == 3 or 0 not in meaning:
            grid, _ = _dies(meaning[labels])
            return _sized(grid)
    inside = labels != outside
    if len(colours) == 3:
        one, other = (number for number in range(3) if number != outside)
        meaning = np.ones(3, np.uint8)
        meaning[outside] = 0
        values = colours.astype(np.float32)
        meaning[one if palette.failed_first(values[outside], values[one], values[other]) else other] = 2
        grid, pitch = _dies(meaning[labels])
        _check_wafer(_sized(grid), pitch)
        return grid
    value = colours[1 - outside]
    if _all_passed(inside, value, grey):
        grid, pitch = _dies(inside.astype(np.uint8))
        known_passed = grey and int(value[0]) in (1, 127, 128)
        if pitch == 1 and min(grid.shape) >= 40 and not known_passed:
            raise NotAWaferMapError("expected a wafer map, got a picture of a plain disc")
        return _sized(grid)
    return _failed_only(inside)


def _all_passed(inside: NDArray[np.bool_], colour: NDArray[np.uint8], grey: bool) -> bool:
    """Whether an area in one colour shows passed dies; with holes in it, it shows failed dies among others."""
    if (grey and int(colour[0]) in (2, 254, 255)) or palette.reddish(colour.astype(np.float32)):
        return False
    box = inside[_box(inside)]
    return _outline(box) and np.array_equal(box, ndimage.binary_fill_holes(box))


def _dies(labels: NDArray[np.uint8]) -> tuple[Grid, float]:
    """One value a die, from one a pixel, without margins; and the pixels that a die has across the shorter way."""
    labels = labels[_box(labels != 0)]
    picks, pitches = [], []
    for axis in (0, 1):
        length = labels.shape[axis]
        changes = lattice.change_places(labels, axis)
        size = int(np.gcd.reduce(np.append(changes, length)))
        count = length // size
        if size == 1 and length >= 64:
            count = lattice.uneven_count(changes, length) or length
        picks.append((2 * np.arange(count) + 1) * length // (2 * count))
        pitches.append(length / count)
    return labels[np.ix_(*picks)], min(pitches)


def _failed_only(failed: NDArray[np.bool_]) -> Grid:
    """The grid of a drawing that shows failed dies alone: the wafer is taken to fill the picture."""
    picks, pitches = [], []
    for axis in (0, 1):
        length = failed.shape[axis]
        changes = lattice.change_places(failed.view(np.uint8), axis)
        size, phase = lattice.pitch(failed.view(np.uint8), axis)
        if size == 1 and length >= 64:
            count = lattice.uneven_count(changes, length) or length
            picks.append((2 * np.arange(count) + 1) * length // (2 * count))
            pitches.append(length / count)
        else:
            picks.append(np.arange(phase + size // 2 if phase == 0 else phase - size + size // 2, length, size))
            picks[-1] = picks[-1][picks[-1] >= 0]
            pitches.append(size)
    grid = _sized(_with_wafer(failed[np.ix_(*picks)]))
    _check_failed_only(grid, min(pitches))
    return grid


def _with_wafer(failed: NDArray[np.bool_]) -> Grid:
    """Passed dies wherever the ellipse that fills the picture has no failed ones."""
    grid = (_radius(failed.shape[0], failed.shape[1]) <= 1.03).astype(np.uint8)
    grid[failed] = 2
    return grid


# -- smoothed and lossy drawings -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sampled:
    """Dies sampled from a picture: colours float32 [rows, columns, channels].

    `pitch` is in pixels a die; `misfit` is how far the dies, drawn again, are from the picture, in shares of the
    picture's edges for each pixel of pitch.
    """

    dies: NDArray[np.float32]
    pitch: float
    misfit: float


def _read_smoothed(pixels: Pixels, weights: Colour) -> Grid:
    longest = max(pixels.shape[:2])
    if longest > 1024:  # no wafer has so many dies that fewer pixels would not do
        step = -(-longest // 1024)
        pixels = np.asarray(Image.fromarray(pixels).reduce(step))
    exact = pixels.astype(np.float32)
    exact = exact[..., None] if exact.ndim == 2 else exact
    border = np.concatenate([exact[0], exact[-1], exact[1:-1, 0], exact[1:-1, -1]])
    outside = palette.densest(np.broadcast_to(border, (border.shape[0], 3)))
    found = _sample(exact, weights)
    inside = np.any([np.abs(exact[..., k] - outside[k]) > 30 for k in range(exact.shape[2])], axis=0)
    if not inside.any():
        raise NotAWaferMapError("expected a wafer map, got a picture in a single colour")
    framed = exact[_box(inside)]
    if framed.shape != exact.shape and (found is None or found.pitch < _LARGE):
        # A margin that is no whole number of dies hides the lattice; a much finer one may have been taken for it.
        within = _sample(framed, weights)
        if within is not None and (found is None or within.pitch > 1.15 * found.pitch):
            found = within
    dies = exact if found is None else found.dies
    dies = np.repeat(dies, 3, axis=2) if dies.shape[2] == 1 else dies
    return _snap(dies, outside, found)


def _sample(exact: NDArray[np.float32], weights: Colour) -> _Sampled | None:
    """Find the lattice of dies and sample it; None where no lattice explains the picture.

    On smoothed drawings of real maps the right lattice has a misfit of less than 0.10 edges a pixel of pitch (0.13
    below two pixels a die); wrong ones have 0.13 and more.
    """
    grey = exact[..., 0] if exact.shape[2] == 1 else exact @ weights
    best: tuple[float, int, int] | None = None
    edges = _edges(grey)
    least_pitch = 1.05
    across = lattice.periods(grey, 1)
    for rows, columns in [(rows, columns) for rows in lattice.periods(grey, 0) for columns in across]:
        pitch = min(exact.shape[0] / rows, exact.shape[1] / columns)
        if pitch < least_pitch:
            continue
        dies = _middles(grey[..., None], rows, columns)[..., 0]
        misfit = min(_deviation(grey, dies, way) for way in _WAYS) / edges / pitch
        misfit -= 0.03 if pitch < _LARGE else 0.0
        if misfit < (0.11 if best is None else best[0]):
            best = misfit, rows, columns
            # Much smaller dies fit everything; near two pixels a die, a count and the one it folds to are rivals.
            least_pitch = max(least_pitch, 0.85 * pitch)
            if pitch > 2.4:
                break
    if best is None:
        return None
    found = _dies_of(exact, grey, edges, *best[1:])
    return found if found.misfit < (_MISFIT_LARGE if found.pitch >= 5 else 0.14) else None


def _dies_of(exact: NDArray[np.float32], grey: NDArray[np.float32], edges: float, rows: int, columns: int) -> _Sampled:
    """The dies of a picture on a known lattice: flat ones by their middles, smoothed ones by undoing the smoothing."""
    height, width = grey.shape
    pitch = min(height / rows, width / columns)
    # Large flat dies have room for a mean, which is less noisy.
    spread = pitch / 6 if pitch >= 4.5 else 0.0
    best = _deviation(grey, _middles(grey[..., None], rows, columns, spread)[..., 0], Image.Resampling.NEAREST)
    undo = None
    for way in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        down, across = lattice.sharpening(rows, height, way), lattice.sharpening(columns, width, way)
        deviation = _deviation(grey, (down @ grey @ across.T).astype(np.float32), way)
        if deviation < best:
            best, undo = deviation, (down, across)
    misfit = best / edges / pitch
    if undo is None:
        return _Sampled(_middles(exact, rows, columns, spread), pitch, misfit)
    planes = [undo[0] @ exact[..., channel] @ undo[1].T for channel in range(exact.shape[2])]
    return _Sampled(np.clip(np.stack(planes, axis=2), 0, 255), pitch, misfit)


def _middles(exact: NDArray[np.float32], rows: int, columns: int, spread: float = 0.0) -> NDArray[np.float32]:
    """The colour in the middle of each die, interpolated; with `spread`, the mean of nine places that far apart."""
    out = exact
    for axis, count in ((0, rows), (1, columns)):
        length = exact.shape[axis]
        middle = (np.arange(count) + 0.5) * (length / count) - 0.5
        offsets = (-spread, 0.0, spread) if spread else (0.0,)
        taken = np.zeros((*out.shape[:axis], count, *out.shape[axis + 1 :]), np.float32)
        for offset in offsets:
            low = np.clip(np.floor(middle + offset).astype(np.intp), 0, length - 2)
            share = np.clip(middle + offset - low, 0, 1).astype(np.float32)
            share = share[:, None, None] if axis == 0 else share[None, :, None]
            taken += out.take(low, axis) * (1 - share) + out.take(low + 1, axis) * share
        out = np.asarray(taken / len(offsets), np.float32)
    return out


def _edges(image: NDArray[np.float32]) -> float:
    """The sum of all steps from a pixel to the next one, 1 at the least."""
    steps = float(np.abs(np.diff(image, axis=0)).sum() + np.abs(np.diff(image, axis=1)).sum())
    return max(1.0, steps)


def _deviation(image: NDArray[np.float32], dies: NDArray[np.float32], way: Image.Resampling) -> float:
    """The sum of absolute differences between a picture and its dies drawn again at its size."""
    again = Image.fromarray(dies).resize((image.shape[1], image.shape[0]), way)
    return float(np.abs(image - np.asarray(again)).sum())


def _snap(dies: NDArray[np.float32], outside: Colour, found: _Sampled | None) -> Grid:
    flat = dies.reshape(-1, 3)
    colours = palette.main_colours(flat, outside)
    if not colours:
        raise NotAWaferMapError("expected a wafer map, got a picture in a single colour")
    meaning = [0, 2]
    if len(colours) == 2:
        meaning = [0, 2, 1] if palette.failed_first(outside, colours[0], colours[1]) else [0, 1, 2]
    distance = np.stack([np.linalg.norm(flat - colour, axis=1) for colour in (outside, *colours)])
    nearest = distance.argmin(axis=0)
    # Pixels that are no dies are blends of dies at worst; dies under strong JPEG, whose colour is coarser than small
    # dies, are further off, but not everywhere.
    limit, share = (25, 0.2) if found is None else (35, 0.25 if found.pitch >= 3 else 0.35)
    if int(np.count_nonzero(distance.min(axis=0) > limit)) > share * int(np.count_nonzero(nearest)):
        raise NotAWaferMapError("expected a wafer map in two or three colours, got a picture in many")
    grid: Grid = np.array(meaning, np.uint8)[nearest].reshape(dies.shape[:2])
    if len(colours) == 1:
        inside = grid != 0
        colour = np.rint(colours[0]).astype(np.uint8)
        if _all_passed(inside, colour, bool(np.ptp(colours[0]) < 10)):
            grid = inside.astype(np.uint8)
        else:
            grid = _with_wafer(inside)
            _check_failed_only(_sized(grid), _UNKNOWN if found is None else found.pitch)
            return grid
    grid = _sized(grid[_box(grid != 0)])
    if found is not None and (min(grid.shape) < 12 or max(grid.shape) < 20):
        raise NotAWaferMapError("expected a wafer map, got a blurred picture without enough dies to tell")
    _check_wafer(grid, _UNKNOWN if found is None else found.pitch)
    return grid


# -- what a wafer looks like -----------------------------------------------------------------------------------------


def _sized(grid: Grid) -> Grid:
    if min(grid.shape) < _LEAST_DIES:
        raise NotAWaferMapError(
            f"expected a wafer map of at least {_LEAST_DIES} dies a side, got {grid.shape[0]} x {grid.shape[1]}"
        )
    return grid


def _radius(rows: int, columns: int) -> NDArray[np.float64]:
    """Squared distance of each die's middle from the grid's middle; 1 on the ellipse that touches all four sides."""
    y = (2 * np.arange(rows) + 1) / rows - 1
    x = (2 * np.arange(columns) + 1) / columns - 1
    return np.asarray(y[:, None] ** 2 + x[None, :] ** 2)


def _outline(inside: NDArray[np.bool_]) -> bool:
    """Whether an area fills the ellipse that touches its four sides, and little else.

    Of 49,799 real maps all but one overlap with theirs by 0.90 or more (shared area over joint area), holes filled.
    """
    ellipse = _radius(inside.shape[0], inside.shape[1]) <= 1
    filled = ndimage.binary_fill_holes(inside)
    return bool(np.count_nonzero(filled & ellipse) > 0.88 * np.count_nonzero(filled | ellipse))


def _check_wafer(grid: Grid, pitch: float) -> None:
    if not _outline(grid != 0):
        raise NotAWaferMapError("expected a wafer map, got a picture whose outline is not that of a wafer")
    _check_grain(grid, pitch)


def _check_failed_only(grid: Grid, pitch: float) -> None:
    """Failed dies alone say little, so they must lie as on a wafer and not as in a code or a sprite."""
    failed = grid == 2
    if max(grid.shape) < 20:
        raise NotAWaferMapError(
            f"expected a wafer map, got a picture of {grid.shape[0]} x {grid.shape[1]} large pixels"
        )
    if _radius(grid.shape[0], grid.shape[1])[failed].max() > 1.25:
        raise NotAWaferMapError("expected a wafer map, got a picture that goes beyond the outline of a wafer")
    # A dense square reaches into its corners: codes and sprites do; of 15,000 real maps none had 1 % of its failures
    # there.
    box = failed[_box(failed)]
    corners = box & (_radius(box.shape[0], box.shape[1]) > 1.3)
    if (
        min(box.shape[0] / grid.shape[0], box.shape[1] / grid.shape[1]) > 0.6
        and np.count_nonzero(box) > 0.25 * box.size
        and np.count_nonzero(corners) > 0.03 * np.count_nonzero(box)
    ):
        raise NotAWaferMapError("expected a wafer map, got a picture of a square")
    _check_grain(grid, pitch)


def _check_grain(grid: Grid, pitch: float) -> None:
    """Where dies are hardly larger than pixels, outlines prove little; then there must be single dies as on a wafer.

    Of 8,000 real maps of 40 dies a side and more, all but 12 had more than half of the regions of the rarer kind of
    die no larger than three dies; signs and letters are larger. None but an engineering test with hardly any dies had
    more than one hole where it had 60 dies a side and more, while letters cut out of a disc make many. Blends along an
    outline are no single dies, so the edge does not count.
    """
    if pitch >= 3 or min(grid.shape) < 40:
        return
    rarer = 2 if np.count_nonzero(grid == 2) <= np.count_nonzero(grid == 1) else 1
    edge = ndimage.binary_dilation(np.pad(grid == 0, 1, constant_values=True), _EIGHT_NEIGHBOURS)[1:-1, 1:-1]
    labels, regions = ndimage.label(grid == rarer, _EIGHT_NEIGHBOURS)
    sizes = np.bincount(labels.ravel(), minlength=regions + 1)
    sizes[labels[edge]] = 0
    sizes = sizes[1:][sizes[1:] > 0]
    if np.count_nonzero(sizes <= 3) <= 0.3 * sizes.size:
        raise NotAWaferMapError("expected a wafer map, got a picture without single dies in it")
    if min(grid.shape) >= 60:
        inside = grid != 0
        _, holes = ndimage.label(ndimage.binary_fill_holes(inside) & ~inside)
        if holes > 30:
            raise NotAWaferMapError("expected a wafer map, got a disc with signs cut out of it")
