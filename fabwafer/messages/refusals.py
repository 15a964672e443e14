"""Why a message is refused: the error that its reader raises, with the kind that it is counted under."""

from typing import Literal, TypeAlias

from fabwafer.errors import FabwaferError

RefusalCode: TypeAlias = Literal["topic", "name", "json", "field", "fields_too_large", "mismatch", "base64"]


class MessageRefusedError(FabwaferError):
    """A message that can never be accepted. The text says what was expected and what came.

    Args:
        message: The sentence.
        code: The kind of refusal, for metrics and dead letters.
    """

    def __init__(self, message: str, code: RefusalCode = "field") -> None:
        super().__init__(message)
        self.code: RefusalCode = code


def shown(value: object) -> str:
    """Return a value for a sentence, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
