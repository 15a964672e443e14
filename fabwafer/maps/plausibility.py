"""Whether a die grid can be a wafer: the tests that tell wafer maps from other pictures."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fabwafer.errors import FabwaferError
from fabwafer.maps import lattice
from fabwafer.maps.grid import EIGHT_NEIGHBOURS, FAILED, OUTSIDE, PASSED, Grid, bounding_box

UNKNOWN_PITCH = 0.0  # the pitch of a drawing whose lattice was not found: each pixel is read as a die
LEAST_DIES = 8
"""Dies along a side of the smallest wafer that is read."""


class NotAWaferMapError(FabwaferError):
    """A fine picture, but not of a wafer map; the message says why not."""


def on_a_wafer(failed: NDArray[np.bool_]) -> Grid:
    """Return passed dies wherever the ellipse that fills the picture has no failed ones."""
    grid = (squared_radius(failed.shape[0], failed.shape[1]) <= 1.03).astype(np.uint8)
    grid[failed] = FAILED
    return grid


def whole_disc(inside: NDArray[np.bool_]) -> bool:
    """Tell whether an area is a disc without holes: dies that all passed, or all failed."""
    area = inside[bounding_box(inside)]
    return fills_ellipse(area) and np.array_equal(area, ndimage.binary_fill_holes(area))


def sized(grid: Grid) -> Grid:
    """Return the grid itself, if it has as many dies a side as a wafer may have.

    Raises:
        NotAWaferMapError: it has too few or too many.
    """
    if min(grid.shape) < LEAST_DIES or max(grid.shape) > lattice.MOST_DIES:
        raise NotAWaferMapError(
            f"expected a wafer map of {LEAST_DIES} to {lattice.MOST_DIES} dies a side, got {grid.shape[0]} x "
            f"{grid.shape[1]}; where no dies are found each pixel counts as one: leave out axes, frames and lines "
            "between dies"
        )
    return grid


def squared_radius(rows: int, columns: int) -> NDArray[np.float64]:
    """Return each die's squared distance from the grid's middle; 1 on the ellipse that touches all four sides."""
    y = (2 * np.arange(rows) + 1) / rows - 1
    x = (2 * np.arange(columns) + 1) / columns - 1
    return np.asarray(y[:, None] ** 2 + x[None, :] ** 2)


def fills_ellipse(inside: NDArray[np.bool_]) -> bool:
    """Tell whether an area fills the ellipse that touches its four sides, and little else.

    Of 49,799 real maps all but one overlap with theirs by 0.90 or more (shared area over joint area), holes filled.
    """
    ellipse = squared_radius(inside.shape[0], inside.shape[1]) <= 1
    filled = ndimage.binary_fill_holes(inside)
    return bool(np.count_nonzero(filled & ellipse) > 0.88 * np.count_nonzero(filled | ellipse))


def check_outline(grid: Grid) -> None:
    """Check that the dies fill an ellipse.

    Raises:
        NotAWaferMapError: they do not.
    """
    if not fills_ellipse(grid != OUTSIDE):
        raise NotAWaferMapError(
            "expected a wafer map, got a picture whose outline is not that of a wafer; axes, frames and lines between "
            "dies must be left out"
        )


def check_wafer(grid: Grid, pitch: float) -> None:
    """Check a grid in which the outside is told from passed dies.

    Args:
        grid: the die grid, without margins.
        pitch: pixels a die has in the drawing, or `UNKNOWN_PITCH`.

    Raises:
        NotAWaferMapError: it does not look like a wafer.
    """
    check_outline(grid)
    check_grain(grid, pitch)


def check_failed_only(grid: Grid, pitch: float) -> None:
    """Check a grid of which only the failed dies are known: they must lie as on a wafer, not as in a code or a sprite.

    Args:
        grid: the die grid; passed dies and outside are guessed.
        pitch: pixels a die has in the drawing, or `UNKNOWN_PITCH`.

    Raises:
        NotAWaferMapError: it does not look like a wafer.
    """
    failed = grid == FAILED
    if max(grid.shape) < 20:
        raise NotAWaferMapError(
            f"expected a wafer map, got a picture of {grid.shape[0]} x {grid.shape[1]} large pixels"
        )
    if squared_radius(grid.shape[0], grid.shape[1])[failed].max() > 1.25:
        raise NotAWaferMapError("expected a wafer map, got a picture that goes beyond the outline of a wafer")
    # A dense square reaches into its corners: codes and sprites do; of 15,000 real maps none had 1 % of its failures
    # there.
    area = failed[bounding_box(failed)]
    corners = area & (squared_radius(area.shape[0], area.shape[1]) > 1.3)
    if (
        min(area.shape[0] / grid.shape[0], area.shape[1] / grid.shape[1]) > 0.6
        and np.count_nonzero(area) > 0.25 * area.size
        and np.count_nonzero(corners) > 0.03 * np.count_nonzero(area)
    ):
        raise NotAWaferMapError("expected a wafer map, got a picture of a square")
    check_grain(grid, pitch)


def check_grain(grid: Grid, pitch: float) -> None:
    """Check that a grid of dies hardly larger than pixels has single dies: outlines prove little there.

    Of 8,000 real maps of 40 dies a side and more, all but 12 had more than half of the regions of the rarer kind of
    die no larger than three dies; signs and letters are larger. None but an engineering test with hardly any dies had
    more than one hole where it had 60 dies a side and more, while letters cut out of a disc make many. Blends along an
    outline are no single dies, so the edge does not count.
    """
    if pitch >= 3 or min(grid.shape) < 40:
        return
    sizes = _region_sizes(grid)
    largest = 8 if pitch == UNKNOWN_PITCH else 3  # a die may be two pixels wide there, and smoothed
    if np.count_nonzero(sizes <= largest) <= 0.3 * sizes.size:
        raise NotAWaferMapError("expected a wafer map, got a picture without single dies in it")
    if min(grid.shape) >= 60:
        inside = grid != OUTSIDE
        _, holes = ndimage.label(ndimage.binary_fill_holes(inside) & ~inside)
        if holes > 30:
            raise NotAWaferMapError("expected a wafer map, got a disc with signs cut out of it")


def check_bins(grid: Grid, pitch: float) -> None:
    """Check a grid that was drawn in more than two colours of dies: pies and shaded discs have them as well.

    Args:
        grid: the die grid, without margins.
        pitch: pixels a die has in the drawing, or `UNKNOWN_PITCH`.

    Raises:
        NotAWaferMapError: it does not look like a wafer.
    """
    if pitch == UNKNOWN_PITCH:
        raise NotAWaferMapError("expected a wafer map in two or three colours, got a picture in many")
    if pitch < 3 and np.count_nonzero(_region_sizes(grid) <= 3) < 8:
        raise NotAWaferMapError("expected a wafer map, got a picture without single dies in it")


def _region_sizes(grid: Grid) -> NDArray[np.intp]:
    """Return how many dies each region of the rarer kind of die has, of those that do not touch the edge."""
    rarer = FAILED if np.count_nonzero(grid == FAILED) <= np.count_nonzero(grid == PASSED) else PASSED
    edge = ndimage.binary_dilation(np.pad(grid == OUTSIDE, 1, constant_values=True), EIGHT_NEIGHBOURS)[1:-1, 1:-1]
    labels, regions = ndimage.label(grid == rarer, EIGHT_NEIGHBOURS)
    sizes = np.bincount(labels.ravel(), minlength=regions + 1)
    sizes[labels[edge]] = 0
    return np.asarray(sizes[1:][sizes[1:] > 0])
