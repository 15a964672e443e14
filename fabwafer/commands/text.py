"""What commands print: whatever a terminal would obey in texts from outside is written as an escape, in one place."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console


def printable(text: str) -> str:
    """Return a text with whatever a terminal cannot show, or would obey, written as an escape; line ends stay."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    if char.isprintable() or char == "\n":
        return char
    # JSON leaves this one as it is, and knows no \x.
    return "\\u007f" if char == "\x7f" else ascii(char)[1:-1]


def one_line(text: str) -> str:
    """Return a text as `printable` does, with its line ends written as escapes, too."""
    return "\\n".join(printable(text).split("\n"))


class EscapingStream:
    """A text stream on which everything is written as `printable` returns it.

    Args:
        raw: Where it is written.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Write a text; return its length."""
        self.raw.write(printable(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


@contextmanager
def escaped_output() -> Iterator[None]:
    """Within it, what is printed on stdout and stderr, and the sentence of a SystemExit, is escaped.

    A `Console` of rich's own would have its colours escaped as well; use `console`.
    """
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(cast("TextIO", EscapingStream(_raw(sys.stdout)))))
        stack.enter_context(redirect_stderr(cast("TextIO", EscapingStream(_raw(sys.stderr)))))
        try:
            yield
        except SystemExit as ending:
            if isinstance(ending.code, str):
                raise SystemExit(printable(ending.code)) from None
            raise


def console(*, stderr: bool = False, **options: Any) -> "Console":
    """Return a console of rich on which only its own styles are obeyed; text is escaped.

    Args:
        stderr: Whether it prints on stderr.
        options: Of `rich.console.Console`.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment
    from rich.text import Text

    class EscapingConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:  # before it is measured
            return super().render_str(printable(text), **options)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control or segment.text.isprintable():
                    yield segment
                else:
                    yield Segment(printable(segment.text), segment.style)

        def on_broken_pipe(self) -> None:
            # rich raises SystemExit, which `fabwafer up` would end with, leaving its processes. The caller decides.
            raise BrokenPipeError("nobody reads the output any more")

    return EscapingConsole(file=_raw(sys.stderr if stderr else sys.stdout), **options)


def _raw(stream: TextIO) -> TextIO:
    return stream.raw if isinstance(stream, EscapingStream) else stream
