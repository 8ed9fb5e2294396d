"""Paper tables as LaTeX."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass, field

import numpy as np

from reid_attack_bench.report.paper.table import Line, PaperTable, Value
from reid_attack_bench.text import one_line

TEXT_WIDTH, TEXT_HEIGHT = 340.0, 450.0
"""Largest width and height of a table in points: the text area of `article` is 345 × 550, minus the caption."""

STUB_WIDTH = 130.0
"""Largest width of row names in points; longer names are wrapped."""


@dataclass
class _Latex:
    """A table in LaTeX. Wide tables are split into panels that repeat the row names.

    intervals: print intervals below the values; short: number the columns; compact: number the rows too, smaller font.
    """

    table: PaperTable
    intervals: bool
    short: bool = False
    compact: bool = False
    panels: list[range] = field(default_factory=list)

    def __post_init__(self) -> None:
        widths, room = self.widths(), TEXT_WIDTH - sum(self.stub_widths())
        starts = set(np.cumsum([0, *(count for _, count in self.table.groups)]).tolist())
        if len(self.table.groups) == 1:
            starts = set(range(len(widths)))  # otherwise the columns of a group stay together
        if self.compact:  # panels of equal width
            count = math.ceil(sum(widths) / max(room, 1.0))
            room = min(room, max(widths, default=0.0) * math.ceil(len(widths) / count) + 0.1)
        start = 0
        for i in sorted(starts - {0}):
            end = min((other for other in starts if other > i), default=len(widths))
            if sum(widths[start:end]) > room:
                self.panels.append(range(start, i))
                start = i
        self.panels.append(range(start, len(widths)))

    def scale(self) -> float:
        return 7.3 / 8 if self.compact else 1.0

    def gap(self) -> float:
        return 6.0 if self.compact else 8.0

    def heads(self) -> tuple[str, ...]:
        return self.table.short if self.short else self.table.heads

    def stub(self, line: Line) -> list[str]:
        """Row names; with `short` prefixed by the column number of the model, with `compact` only that number."""
        texts = list(line.stub)
        if self.short and texts[-1] in self.table.heads:
            number = self.table.short[self.table.heads.index(texts[-1])]
            texts[-1] = number if self.compact else f"{number} {texts[-1]}"
        elif self.compact:
            texts[-1] = texts[-1].partition(" (")[0]
        return texts

    def stub_widths(self) -> list[float]:
        columns = zip(self.table.stub, *(self.stub(line) for line in self.table.lines), strict=True)
        return [min(max(map(_points, column)) * self.scale(), STUB_WIDTH) + self.gap() for column in columns]

    def widths(self) -> list[float]:
        found = []
        for i, head in enumerate(self.heads()):
            values = [line.values[i] for line in self.table.lines]
            texts = [f.text + (f" ±{f.spread}" if f.spread else "") + "a" * bool(f.notes) for f in values]
            small = [0.88 * _points(f.interval) for f in values if self.intervals]
            widest = max([_points(head), *map(_points, texts), *small]) * self.scale()
            found.append(widest + self.gap())
        if len(self.table.groups) > 1:  # a group is at least as wide as its title
            first = 0
            for title, count in self.table.groups:
                lacking = _points(title) + self.gap() - sum(found[first : first + count])
                for i in range(first, first + count):
                    found[i] += max(lacking, 0.0) / count
                first += count
        return found

    def height(self) -> float:
        line = 8.5 if self.compact else 9.5
        folds = sum(max(map(_points, self.stub(row))) > STUB_WIDTH for row in self.table.lines)
        one = (len(self.table.lines) * (2 if self.intervals else 1) + folds) * line
        return len(self.panels) * (one + 45)

    def text(self) -> str:
        table, marks = self.table, self.table.notes
        caption = table.caption
        if any(value.interval for line in table.lines for value in line.values):
            caption += f" {table.intervals}" if self.intervals else " Intervals are in the Markdown and the CSV."
        out = [r"\begin{table}[tbp]", r"\centering", rf"\caption{{{latex_text(caption)}}}"]
        out += [rf"\label{{tab:{_label(table.label)}}}", r"\par\smallskip"]
        out += [
            rf"\{'scriptsize' if self.compact else 'footnotesize'}",
            rf"\setlength{{\tabcolsep}}{{{self.gap() / 2:g}pt}}",
        ]
        for i, panel in enumerate(self.panels):
            out += [r"\par\medskip"] * (i > 0) + self.panel(panel)
        below = [f"$^{{\\mathrm{{{mark}}}}}$ {latex_text(note)}." for note, mark in marks.items()]
        if self.short:
            named = set() if self.compact else {line.stub[-1] for line in table.lines}
            others = [
                f"{s}\N{NO-BREAK SPACE}{h}" for s, h in zip(table.short, table.heads, strict=True) if h not in named
            ]
            below[:0] = [f"{latex_text(', '.join(others))}."] if others else []
        if below:
            out += [r"\par\smallskip", r"\begin{minipage}{\linewidth}\raggedright\scriptsize"]
            out += [" \\\\\n".join(below), r"\end{minipage}"]
        return "\n".join([*out, r"\end{table}"]) + "\n"

    def panel(self, columns: range) -> list[str]:
        table, stubs = self.table, len(self.table.stub)
        kinds = []
        for name, width in zip(table.stub, self.stub_widths(), strict=True):
            fits = width < STUB_WIDTH + self.gap()
            kinds.append("r" if name == "#" else "l" if fits else f"p{{{STUB_WIDTH:g}pt}}")
        out = [rf"\begin{{tabular}}{{@{{}}{''.join(kinds)}{'r' * len(columns)}@{{}}}}", r"\toprule"]
        titles, rules, first = [""] * stubs, [], 0
        for title, count in table.groups:
            inside = [i for i in range(first, first + count) if i in columns]
            first += count
            if inside:
                titles.append(rf"\multicolumn{{{len(inside)}}}{{c}}{{{latex_text(title)}}}")
                begin = stubs + 1 + inside[0] - columns.start
                rules.append(rf"\cmidrule(lr){{{begin}-{begin + len(inside) - 1}}}")
        if not self.compact:
            out += [" & ".join(titles) + r" \\", " ".join(rules)]
        heads = [latex_text(self.heads()[i]) for i in columns]
        out += [" & ".join([*map(latex_text, table.stub), *heads]) + r" \\", r"\midrule"]
        for y, line in enumerate(table.lines):
            out += [r"\midrule"] * (line.rule and y > 0)
            stub = [
                rf"\raggedright {_breakable(latex_text(text))}" if kind.startswith("p") else latex_text(text)
                for kind, text in zip(kinds, self.stub(line), strict=True)
            ]
            stub[-1] += self.raised(line.notes)
            out.append(" & ".join([*stub, *(self.value_text(line.values[i]) for i in columns)]) + r" \\")
            if self.intervals:
                ends = [line.values[i].interval for i in columns]
                small = [rf"{{\scriptsize {latex_text(text)}}}" if text else "" for text in ends]
                out.append(" & ".join([*[""] * stubs, *small]) + r" \\")
        return [*out, r"\bottomrule", r"\end{tabular}"]

    def value_text(self, value: Value) -> str:
        text = latex_text(value.text) or "--"
        if value.best:
            text = rf"\textbf{{{text}}}"
        if value.spread:
            text += rf" $\pm$ {value.spread}"
        if value.own:
            text += r"\rlap{$^{\ast}$}" if not value.notes else r"$^{\ast}$"
        return text + self.raised(value.notes)

    def raised(self, notes: tuple[str, ...]) -> str:
        marks = self.table.notes
        return rf"$^{{\mathrm{{{','.join(marks[note] for note in notes)}}}}}$" if notes else ""


def to_latex(table: PaperTable) -> str:
    """A `table` float in booktabs style; intervals are printed below the values if the page has room."""
    full = any(value.interval for line in table.lines for value in line.values)
    named = [_Latex(table, full), _Latex(table, False)]
    if table.short:  # column names are kept only if one panel suffices
        numbered = [_Latex(table, full, short=True), _Latex(table, False, short=True)]
        layouts = [each for pair in zip(named, numbered, strict=True) for each in pair]
        layouts = [each for each in layouts if each.short or len(each.panels) == 1]
        layouts.append(_Latex(table, False, short=True, compact=True))
    else:
        layouts = named
    layout = next((each for each in layouts if each.height() <= TEXT_HEIGHT), layouts[-1])
    return f"% {_ascii(one_line(table.comment))}\n% needs \\usepackage{{booktabs}}\n{layout.text()}"


def _points(text: str) -> float:
    """Approximate width of a line in 8 pt Computer Modern, in points."""
    return sum(2.6 if c in " .,:;|[]()il1'" and not c.isdigit() else 6.6 if c in "mwMW@%ε=≤±" else 4.5 for c in text)


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "[": "{[}", "*": r"$^{\ast}$", '"': "''", "ε": r"$\varepsilon$", "≤": r"$\leq$",
    "≥": r"$\geq$", "±": r"$\pm$", "×": r"$\times$", "∞": r"$_\infty$", "\N{NO-BREAK SPACE}": "~",
    "\N{MINUS SIGN}": "$-$", "→": r"$\rightarrow$", "\N{EN DASH}": "--", "—": "---", "…": r"\ldots{}", "·": r"$\cdot$",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'", "\N{LEFT SINGLE QUOTATION MARK}": "`", "µ": r"$\mu$", "°": r"$^{\circ}$",
}  # fmt: skip


def latex_text(text: str) -> str:
    """Text for pdflatex: special characters escaped, known ones as commands, others as their code point."""
    line = "".join(_latex_character(character) for character in text)
    return line.replace(r" \%", r"~\%").replace(r"$\varepsilon$ = ", r"$\varepsilon$~=~")


def _breakable(latex: str) -> str:
    """A long name with allowed line breaks after "_", "@" and "-"."""
    for character in (r"\_", "@", "-"):
        latex = latex.replace(character, rf"{character}\allowbreak{{}}")
    return latex


def _latex_character(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character.isascii():
        return character if character.isprintable() else " "  # a line break or a tab
    plain = unicodedata.normalize("NFKD", character)
    if len(plain) == 2 and plain[0].isascii() and plain[1] in _ACCENTS:
        return rf"{_ACCENTS[plain[1]]}{{{plain[0]}}}"
    return plain if plain.isascii() and plain.isalnum() else f"{{[}}U+{ord(character):04X}]"


_ACCENTS = {"\u0300": r"\`", "\u0301": r"\'", "\u0302": r"\^", "\u0303": r"\~", "\u0308": r"\"", "\u0327": r"\c"}


def _label(name: str) -> str:
    return "".join(character if character.isascii() and character.isalnum() else "-" for character in name)


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
