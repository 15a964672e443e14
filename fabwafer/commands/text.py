"""Texts from outside, made safe to print on a terminal."""


def printable(text: str) -> str:
    """Return a text with whatever a terminal cannot show, or would obey, written as an escape; line ends stay."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def one_line(text: str) -> str:
    """Return a text as `printable` does, with its line ends written as escapes, too."""
    return "\\n".join(printable(text).split("\n"))
