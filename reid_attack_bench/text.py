"""Text of others (labels, paths, messages of plug-ins) on its way to a terminal or a file: never markup, never control.

Whatever the program prints goes through `say` or a `PlainConsole`, and cells of CSV files through `csv_cell`.
"""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Categories of Unicode: control, format (bidirectional overrides, zero widths), surrogates, separators of lines."""

_KEPT = frozenset("\n\t\u200c\u200d")
"""Line ends and tabs; joiners, without which some scripts and emoji are wrong."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Beginnings that spreadsheets take for a formula; the last four are full-width."""

_LONGEST = 150
"""Bytes of a file name, of the 255 that file systems take."""

_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|nan)")


def visible(value: object) -> str:
    r"""Text whose control characters, bidirectional overrides and undecodable bytes are escapes, such as \x1b.

    Line ends and tabs are kept; "\r\n" is a line end.
    """
    text = str(value)
    if text.isprintable():
        return text
    return "".join(map(_shown, text.replace("\r\n", "\n")))


def one_line(value: object) -> str:
    """`visible` text in one line: runs of white space are one space."""
    return " ".join(visible(value).split())


def file_name(*parts: str) -> str:
    """A portable file name from labels; if it had to be changed or cut, a short hash keeps names unique.

    It leaves room for a suffix and for what `files.replace_file` adds.
    """
    joined = "_".join(parts)
    plain = re.sub(r"[^A-Za-z0-9._@+=-]+", "-", joined)
    if plain == joined and len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST - 7]}-{hashlib.sha256(joined.encode(errors='surrogatepass')).hexdigest()[:6]}"


def folder_name(text: str) -> str:
    """A text as the name of a folder or file: as it is if it can be one, else a `file_name`."""
    return file_name(text) if no_file_name(text) else text


def no_label(text: str) -> str:
    """Why a text cannot be a label in tables and plots; empty if it can."""
    if not text.strip():
        return "is empty"
    if one_line(text) != text:
        return "has control characters, or white space at its ends"
    return f"is longer than {_LONGEST} bytes" if len(text.encode()) > _LONGEST else ""


def no_file_name(text: str) -> str:
    """Why a text cannot be the name of a file or folder on every system; empty if it can."""
    if "/" in text or "\\" in text or text in (".", ".."):
        return "is a path"
    if mistake := no_label(text):
        return mistake
    if text.startswith((".", "~", "-")) or text.endswith("."):
        return "begins with a dot, ~ or -, or ends with a dot"
    if re.fullmatch(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", text, re.IGNORECASE):
        return "is the name of a device on Windows"
    return ""


def csv_cell(text: str) -> str:
    """`visible` text; with ' before what a spreadsheet would take for a formula. Numbers stay numbers."""
    shown = visible(text)
    start = shown.lstrip(" ")
    return f"'{shown}" if start.startswith(_FORMULA) and not _NUMBER.fullmatch(start) else shown


def code_span(text: str) -> str:
    """Text in one line as code within a line of Markdown, whatever backticks are in it."""
    line = one_line(text)
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    ticks, room = "`" * (longest + 1), " " * (longest > 0)
    return f"{ticks}{room}{line}{room}{ticks}"


def fenced(lines: Iterable[str], language: str = "") -> list[str]:
    """Lines as a code block of Markdown, in a fence that no line can end."""
    shown = [visible(line) for line in lines]
    longest = max((len(run) for line in shown for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *shown, fence]


def say(value: object, file: TextIO | None = None) -> None:
    """Print `visible` text on standard output, or `file`; characters that its encoding lacks are escapes."""
    file = file or sys.stdout
    print(_encodable(visible(value), file.encoding), file=file)


class PlainConsole(Console):
    """A console of rich that takes nothing for markup, an emoji or a control sequence; style is that of `rich.Text`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **settings})

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError  # the command ends as if it had printed itself

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(visible(text), **settings)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else _encodable(visible(text), self.encoding), style, control)


def _shown(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HIDDEN:
        return character
    byte = ord(character) - 0xDC00  # of a file name that is not UTF-8, as Python holds it
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else character.encode("unicode_escape").decode()


def _encodable(text: str, encoding: str | None) -> str:
    if not encoding or text.isascii():
        return text
    return text.encode(encoding, "backslashreplace").decode(encoding)
