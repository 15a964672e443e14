"""What somebody states about a drawing: which colours are outside, passed and failed.

Apart from what reads drawings, so that those who only carry it need no NumPy.
"""

import re
from typing import Annotated, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from fabwafer.errors import FabwaferError

_HEX: Final = re.compile(r"#?([0-9a-fA-F]{6}|[0-9a-fA-F]{3})")
_MOST: Final = 64


def _colour(value: object) -> str:
    match = _HEX.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a colour as '#rrggbb'")
    digits = match[1].lower()
    return "#" + (digits if len(digits) == 6 else "".join(2 * digit for digit in digits))


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Colours = Annotated[tuple[Annotated[str, BeforeValidator(_colour)], ...], BeforeValidator(_listed)]


class StatedColoursError(FabwaferError):
    """What was stated about colours is not understood; the message says what was expected and what came."""


class StatedColours(BaseModel):
    """The colours of a drawing by what they mean, `#rrggbb`; one colour, or a list.

    Attributes:
        outside: Of what is not on the wafer; the colour of the corners where none is stated.
        passed: Of passed dies; all other dies where none is stated.
        failed: Of failed dies; all other dies where none is stated.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    outside: Colours = Field(default=(), max_length=_MOST)
    passed: Colours = Field(default=(), max_length=_MOST)
    failed: Colours = Field(default=(), max_length=_MOST)

    @model_validator(mode="after")
    def _tells_passed_from_failed(self) -> Self:
        if not (self.passed or self.failed):
            raise ValueError("expected the colours of passed dies, of failed dies, or both")
        both = set(self.passed) & set(self.failed)
        if both or set(self.outside) & set(self.failed):
            raise ValueError("expected different colours for failed dies and for others")
        return self

    @classmethod
    def read(cls, value: object) -> Self:
        """Read a statement: an object, or the text of one as JSON.

        Raises:
            StatedColoursError: It is none.
        """
        try:
            return cls.model_validate_json(value) if isinstance(value, (str, bytes)) else cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(["colours", *map(str, first["loc"])])
            shown = repr(first["input"])
            came = shown if len(shown) <= 80 else shown[:77] + "..."
            raise StatedColoursError(f"{where}: {first['msg'].removeprefix('Value error, ')}, got {came}") from None

    def to_json(self) -> str:
        """Return it as JSON in one line, without what is not stated."""
        return self.model_dump_json(exclude_defaults=True)
