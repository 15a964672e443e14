"""What can be counted on imported images. The only module of this room that needs NumPy."""

from collections.abc import Callable

from fabwafer.maps.counts import MapCounts
from fabwafer.maps.grid import count
from fabwafer.maps.plausibility import NotAWaferMapError
from fabwafer.maps.stated_colours import StatedColours
from fabwafer.maps.wafermap import read
from fabwafer.messages.bodies import ImageMetadata


def count_dies(
    image: ImageMetadata, data: bytes, set_for: Callable[[str, str], StatedColours | None]
) -> MapCounts | None:
    """Count the dies on an image's wafer map.

    Args:
        image: Whose image it is, and what it states about its colours.
        data: The image file.
        set_for: Returns what is set for the colours of a fab's and camera's drawings.

    Returns:
        The counts; None where the image shows no wafer map, or its colours leave a doubt about passed and failed.

    Raises:
        BadImageError: The file is no image that is accepted here.
    """
    try:
        found = read(data, image.colours or set_for(image.fab, image.camera))
    except NotAWaferMapError:
        return None
    return None if found.doubt else count(found.grid)
