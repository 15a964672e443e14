"""What the colours of drawings mean, by fab and camera."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from fabwafer.maps.stated_colours import StatedColours
from fabwafer.records.fields import storable
from fabwafer.records.inserts import insert
from fabwafer.records.tables import drawings


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is set for a camera's drawings; without a camera, for all of the fab's that have no setting of their own."""

    fab: str
    camera: str | None
    colours: StatedColours


def read_drawings(connection: Connection) -> list[Drawing]:
    """Read all settings, by fab and camera."""
    rows = connection.execute(select(drawings).order_by(drawings.c.fab, drawings.c.camera))
    return [Drawing(row.fab, row.camera or None, StatedColours.read(row.colours)) for row in rows]


def statement_finder(settings: Sequence[Drawing]) -> Callable[[str, str], StatedColours | None]:
    """Return the function that finds what is set for a fab and camera: the camera's setting before the fab's."""
    by_place = {(one.fab, one.camera): one.colours for one in settings}
    return lambda fab, camera: by_place.get((fab, camera)) or by_place.get((fab, None))


def write_drawing(connection: Connection, drawing: Drawing) -> None:
    """Set what the colours of a camera's or a fab's drawings mean, in place of what was set before."""
    key = {"fab": storable(drawing.fab), "camera": storable(drawing.camera or "")}
    statement = insert(connection, drawings).values(**key, colours=drawing.colours.to_json())
    connection.execute(
        statement.on_conflict_do_update(index_elements=list(key), set_={"colours": statement.excluded.colours})
    )


def delete_drawing(connection: Connection, fab: str, camera: str | None) -> bool:
    """Delete a setting; return whether there was one."""
    found = delete(drawings).where(drawings.c.fab == storable(fab), drawings.c.camera == storable(camera or ""))
    return connection.execute(found).rowcount > 0
