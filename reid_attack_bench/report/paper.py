r"""Tables for a paper: the leaderboard and every matrix, in LaTeX and in Markdown.

The LaTeX needs `\usepackage{booktabs}` and nothing else, and fits the text width of `article`.
"""

from __future__ import annotations

import math
import string
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, product
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pandas as pd

from reid_attack_bench.report import plots, tables
from reid_attack_bench.report.results import Results
from reid_attack_bench.report.tables import Row, Setting
from reid_attack_bench.store import replace_file

TEXT_WIDTH, TEXT_HEIGHT = 340.0, 450.0
"""Points that a table may take: the text of `article` is 345 by 550, and the caption needs some of it."""
STUB_WIDTH = 130.0
"""Points: longer names of rows are folded."""
REASON_LENGTH = 160
"""Longer reasons are cut; matrix.csv has them whole."""


@dataclass(frozen=True)
class Figure:
    """One figure of a table, in %: text "12.3", or "" where there is none; then `notes` say why.

    spread: standard deviation over seeds; interval: "[10.1, 14.2]"; best: the one to look at in its column; own: source
    is target.
    """

    text: str
    spread: str = ""
    interval: str = ""
    best: bool = False
    own: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """A row: what it is about, its figures, and whether a rule stands above it. notes: of the last of `stub`."""

    stub: tuple[str, ...]
    figures: tuple[Figure, ...]
    rule: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PaperTable:
    """A table in no format yet. groups: (title, columns below it); heads: one per figure; short: narrow heads."""

    caption: str
    label: str
    stub: tuple[str, ...]
    groups: tuple[tuple[str, int], ...]
    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    short: tuple[str, ...] = ()
    intervals: str = "95 % bootstrap intervals over queries in brackets."
    comment: str = ""

    def notes(self) -> dict[str, str]:
        """Every note and its mark, in reading order: a, b, … z, aa …"""
        found: dict[str, str] = {}
        names = ("".join(letters) for length in (1, 2, 3) for letters in product(string.ascii_lowercase, repeat=length))
        for line in self.lines:
            for note in (*line.notes, *(note for figure in line.figures for note in figure.notes)):
                if note not in found:
                    found[note] = next(names)
        return found


# What the tables hold


def leaderboard(results: Results, board: pd.DataFrame) -> PaperTable:
    """The columns of the leaderboard that a page has room for: clean, and the worst case at every epsilon."""
    rows = tables.rows(board)
    epsilons = tables.epsilons(tables.settings(results))
    names = ["clean", *(f"worst_e{epsilon}" for epsilon in epsilons)]
    columns = [f"{name}_{metric}" for name in names for metric in plots.METRICS]
    stub = {"#": ["–" if tables.is_missing(row["rank"]) else str(row["rank"]) for row in rows]}
    stub["victim"] = [str(row["victim"]) for row in rows]
    if any(row["defence"] for row in rows):
        stub["defence"] = [str(row["defence"]) for row in rows]
    if not all(row["victim"].endswith(f"@{row['dataset']}") for row in rows):
        stub["data set"] = [str(row["dataset"]) for row in rows]  # else the labels say it already
    standing = [row for row in rows if not row["audit"]]
    bounded = {name for name in columns for row in standing if row.get(f"{name.rpartition('_')[0]}_missing", 0)}
    highest = {  # an upper bound beats nobody
        name: "" if name in bounded else _best([tables.number(row.get(name)) for row in standing]) for name in columns
    }
    lines = []
    for i, row in enumerate(rows):
        figures = []
        for name in columns:
            gone = row.get(name.rpartition("_")[0] + "_missing", 0)
            figure = _figure(row, name, "no attack at this ε succeeded" if "worst" in name else "not evaluated")
            if figure.text and gone:
                bound = "≤: cells of this worst case are missing, so the true one can only be lower"
                figure = replace(figure, text="≤ " + figure.text, notes=(bound,))
            best = bool(figure.text) and not row["audit"] and _shown(row.get(name)) == highest[name]
            figures.append(replace(figure, best=best))
        below = bool(row["audit"]) and (i == 0 or not rows[i - 1]["audit"])
        notes = (f"{row['audit']}; see the audit in report.md",) if row["audit"] else ()
        lines.append(Line(tuple(column[i] for column in stub.values()), tuple(figures), below, notes))
    places = "; ".join(plots.describe(results, name) for name in sorted({str(row["dataset"]) for row in rows}))
    caption = (
        f"Robustness of re-identification models in %, suite {results.suite}, seed {results.seed} ({places}). "
        "Worst case at ε: for each query the lowest outcome over all attacks and sources with an L∞ budget of ε, then "
        f"the mean over queries. Ordered by worst-case mAP at ε = {results.headline_epsilon}/255."
    )
    caption += " Bold: highest in its column." if any(f.best for line in lines for f in line.figures) else ""
    groups = ("clean", *(f"worst case, ε = {epsilon}/255" for epsilon in epsilons))
    return PaperTable(
        caption, f"leaderboard-{results.suite}", tuple(stub), tuple((group, len(plots.METRICS)) for group in groups),
        tuple(plots.METRICS.values()) * len(groups), tuple(lines), comment=_comment(results),
    )  # fmt: skip


def matrix(results: Results, dataset: str, setting: Setting, metric: str) -> PaperTable:
    """Sources × targets of one attack at one budget on one data set; metric is "rank1" or "mAP"."""
    cells = [c for c in tables.rows(results.cells) if c["dataset"] == dataset and tables.setting_of(c) == setting]
    unharmed = {row["victim"]: row for row in tables.rows(results.clean) if row["dataset"] == dataset}
    sources = sorted({str(cell["source"]) for cell in cells})
    targets = sorted({str(cell["target"]) for cell in cells})
    groups: dict[tuple[str, str], list[Row]] = {}
    for cell in cells:
        groups.setdefault((str(cell["source"]), str(cell["target"])), []).append(cell)
    means = {place: tables.over_seeds(group)[0] for place, group in groups.items()}
    lowest = {
        target: _best(
            [
                tables.number(cell[metric])
                for (source, at), cell in means.items()
                if at == target != source and cell["status"] == "ok"
            ],
            lowest=True,
        )
        for target in targets
    }
    clean = [_figure(unharmed.get(target) or {}, metric, "not evaluated") for target in targets]
    lines = [Line((plots.CLEAN_ROW,), tuple(clean))]
    for source in sources:
        figures = []
        for target in targets:
            figure = _attacked(groups.get((source, target), []), means.get((source, target)), metric)
            own = source == target
            best = not own and bool(figure.text) and figure.text == lowest[target]
            figures.append(replace(figure, best=best, own=own))
        lines.append(Line((source,), tuple(figures), rule=source == sources[0]))
    seeds = sorted({int(c["seed"]) for c in cells if not tables.is_missing(c["seed"])})
    every = [figure for line in lines for figure in line.figures]
    words = [
        f"{plots.METRICS[metric]} in % under {setting.variant}, L∞ budget ε = {setting.epsilon}/255, on "
        f"{plots.describe(results, dataset)}; suite {results.suite}, seed {results.seed}.",
        "Rows: the model that the attack was crafted on; columns: the model that is evaluated.",
    ]
    if any(figure.spread for figure in every):
        words.append(f"Mean ± standard deviation over {len(seeds)} seeds of the attack.")
    words += ["*: white-box (source = target)."] * any(figure.own for figure in every)
    if any(figure.best for figure in every):
        gaps = " among those with a figure" if any(not figure.text for figure in every) else ""
        words.append(f"Bold: strongest transfer to that model{gaps}.")
    interval = "95 % bootstrap intervals over queries in brackets" + (", mean over seeds." if len(seeds) > 1 else ".")
    label = f"matrix-{results.suite}-{dataset}-{setting.attack}-{setting.budget}-{metric}"
    return PaperTable(
        " ".join(words), label, ("crafted on",), (("evaluated on", len(targets)),), tuple(targets), tuple(lines),
        short=tuple(f"({i})" for i in range(1, len(targets) + 1)), intervals=interval, comment=_comment(results),
    )  # fmt: skip


def _attacked(group: list[Row], mean: Row | None, metric: str) -> Figure:
    done = [cell for cell in group if cell["status"] == "ok"]
    reasons = list(dict.fromkeys(_cut(str(cell["status"])) for cell in group if cell["status"] != "ok"))
    if mean is None or not done:
        return Figure("", notes=("; ".join(reasons) or "not run",))
    figure = _figure(mean, metric, "no figure")
    spread = ""
    if len(done) > 1:
        spread = f"{float(np.std([tables.number(cell[metric]) for cell in done], ddof=1)):.1f}"
    notes = (f"{len(done)} of {len(group)} seeds; {'; '.join(reasons)}",) if reasons else ()
    return replace(figure, spread=spread, notes=figure.notes + notes)


def _figure(row: Row, name: str, without: str) -> Figure:
    """A figure of a table's row with its interval; `without` says why where there is none."""
    text = _shown(row.get(name))
    if not text or row.get("status", "ok") != "ok":
        status = str(row.get("status", "ok"))
        return Figure("", notes=(_cut(status) if status != "ok" else without,))
    ends = [_shown(row.get(f"{name}{end}")) for end in ("_low", "_high")]
    return Figure(text, interval=f"[{ends[0]}, {ends[1]}]" if all(ends) else "")


def _shown(value: object) -> str:
    figure = tables.number(value)
    return "" if math.isnan(figure) else f"{figure + 0.0:.1f}"


def _best(values: Iterable[float], lowest: bool = False) -> str:
    """The highest, or the lowest, as it is shown, "" where fewer than two figures differ."""
    known = [value for value in values if not math.isnan(value)]
    if len({_shown(value) for value in known}) < 2:
        return ""
    return _shown(min(known) if lowest else max(known))


def _cut(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= REASON_LENGTH else line[: REASON_LENGTH - 1] + "…"


def _comment(results: Results) -> str:
    command = results.manifest.get("command", "")
    words = command if isinstance(command, str) else " ".join(map(str, command))
    return " ".join(f"suite {results.suite}, seed {results.seed}; made by: {words}".split())


# Markdown


def to_markdown(table: PaperTable) -> str:
    """Caption, table and notes; figures as **12.3** ± 0.4 [10.1, 14.2], * for white-box."""
    marks = table.notes()
    over = [group for group, count in table.groups for _ in range(count)]
    several = len(table.groups) > 1
    heads = [f"{group}, {head}" if several else head for group, head in zip(over, table.heads, strict=True)]
    has_intervals = any(figure.interval for line in table.lines for figure in line.figures)
    caption = table.caption + (f" {table.intervals}" if has_intervals else "")
    lines = [_markdown_text(caption), "", _markdown_line([*table.stub, *heads])]
    lines.append("| " + " | ".join(["---"] * len(table.stub) + ["--:"] * len(heads)) + " |")
    for line in table.lines:
        raised = "".join(f"<sup>{marks[note]}</sup>" for note in line.notes)
        stub = [_markdown_text(text) for text in line.stub]
        stub[-1] += raised
        lines.append("| " + " | ".join([*stub, *(_markdown_figure(each, marks) for each in line.figures)]) + " |")
    if marks:
        lines += ["", *(f"<sup>{mark}</sup> {_markdown_text(note)}  " for note, mark in marks.items())]
        lines[-1] = lines[-1].rstrip()
    return "\n".join(lines) + "\n"


def _markdown_figure(figure: Figure, marks: dict[str, str]) -> str:
    raised = "".join(f"<sup>{marks[note]}</sup>" for note in figure.notes)
    if not figure.text:
        return "–" + raised
    text = f"**{figure.text}**" if figure.best else figure.text
    text += r"\*" if figure.own else ""
    text += f" ± {figure.spread}" if figure.spread else ""
    text += " " + figure.interval.replace("[", r"\[") if figure.interval else ""
    return text + raised


def _markdown_line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_markdown_text(text) for text in texts) + " |"


def _markdown_text(text: str) -> str:
    line = " ".join(text.split())
    for special in "\\|*_`[#":
        line = line.replace(special, f"\\{special}")
    return line.replace("<", "&lt;")


# LaTeX


@dataclass
class _Latex:
    """One table in LaTeX: a wide one is cut into panels, each with the names of the rows.

    intervals: below their figures; short: columns have numbers for names; compact: so have rows, in smaller print.
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
            starts = set(range(len(widths)))  # else the columns of a group stay together
        if self.compact:  # as wide as each other
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
        """What a row is about; with short heads it starts with the number of its column, if compact that is all."""
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
            figures = [line.figures[i] for line in self.table.lines]
            texts = [f.text + (f" ±{f.spread}" if f.spread else "") + "a" * bool(f.notes) for f in figures]
            small = [0.88 * _points(f.interval) for f in figures if self.intervals]
            widest = max([_points(head), *map(_points, texts), *small]) * self.scale()
            found.append(widest + self.gap())
        if len(self.table.groups) > 1:  # a group is as wide as its title
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
        table, marks = self.table, self.table.notes()
        caption = table.caption
        if any(figure.interval for line in table.lines for figure in line.figures):
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
            out.append(" & ".join([*stub, *(self.figure(line.figures[i]) for i in columns)]) + r" \\")
            if self.intervals:
                ends = [line.figures[i].interval for i in columns]
                small = [rf"{{\scriptsize {latex_text(text)}}}" if text else "" for text in ends]
                out.append(" & ".join([*[""] * stubs, *small]) + r" \\")
        return [*out, r"\bottomrule", r"\end{tabular}"]

    def figure(self, figure: Figure) -> str:
        text = latex_text(figure.text) or "--"
        if figure.best:
            text = rf"\textbf{{{text}}}"
        if figure.spread:
            text += rf" $\pm$ {figure.spread}"
        if figure.own:
            text += r"\rlap{$^{\ast}$}" if not figure.notes else r"$^{\ast}$"
        return text + self.raised(figure.notes)

    def raised(self, notes: tuple[str, ...]) -> str:
        marks = self.table.notes()
        return rf"$^{{\mathrm{{{','.join(marks[note] for note in notes)}}}}}$" if notes else ""


def to_latex(table: PaperTable) -> str:
    """One `table` float with the rules of booktabs; intervals below their figures where a page has room for them."""
    full = any(figure.interval for line in table.lines for figure in line.figures)
    named = [_Latex(table, full), _Latex(table, False)]
    if table.short:  # names of columns are worth it only where that needs no second panel
        numbered = [_Latex(table, full, short=True), _Latex(table, False, short=True)]
        layouts = [each for pair in zip(named, numbered, strict=True) for each in pair]
        layouts = [each for each in layouts if each.short or len(each.panels) == 1]
        layouts.append(_Latex(table, False, short=True, compact=True))
    else:
        layouts = named
    layout = next((each for each in layouts if each.height() <= TEXT_HEIGHT), layouts[-1])
    return f"% {_ascii(table.comment)}\n% needs \\usepackage{{booktabs}}\n{layout.text()}"


def _points(text: str) -> float:
    """About the width of a line at 8 pt Computer Modern."""
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
    """Text as plain pdflatex prints it: characters of its own escaped, others as commands, the rest by their number."""
    line = "".join(_latex_character(character) for character in text)
    return line.replace(r" \%", r"~\%").replace(r"$\varepsilon$ = ", r"$\varepsilon$~=~")


def _breakable(latex: str) -> str:
    """A long name that may be broken after "_", "@" and "-"."""
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


# Files


def write_tables(results: Results, board: pd.DataFrame, folder: Path) -> list[Path]:
    """Write leaderboard and matrices as .tex and .md; returns the paths. `board`: see tables.leaderboard."""
    first = leaderboard(results, board)
    written = [
        replace_file(folder / "leaderboard.tex", to_latex(first).encode()),
        replace_file(folder / "leaderboard.md", to_markdown(first).encode()),
    ]
    for dataset, setting in _places(results):
        both = [matrix(results, dataset, setting, metric) for metric in plots.METRICS]
        stem = _stem(dataset, setting)
        written.append(replace_file(folder / f"{stem}.tex", "\n".join(map(to_latex, both)).encode()))
        written.append(replace_file(folder / f"{stem}.md", "\n".join(map(to_markdown, both)).encode()))
    return written


def index_lines(results: Results, folder: str = "tables") -> list[str]:
    """The chapter of report.md that links every table."""
    lines = ["", "## Tables for a paper", "", "LaTeX (booktabs, `\\input` as it is) and the same in Markdown.", ""]
    lines.append(f"- leaderboard: {_links(folder, 'leaderboard')}")
    for dataset, places in groupby(_places(results), key=lambda place: place[0]):
        for _, setting in places:
            words = f"{setting.variant}, ε = {setting.epsilon}/255, on {dataset}"
            lines.append(f"- {_markdown_text(words)}: {_links(folder, _stem(dataset, setting))}")
    return lines


def _links(folder: str, stem: str) -> str:
    path = quote(f"{folder}/{stem}", safe="/@+=")
    return f"[LaTeX]({path}.tex), [Markdown]({path}.md)"


def _places(results: Results) -> list[tuple[str, Setting]]:
    """Every (data set, setting) that the run has cells of."""
    columns = ["dataset", "attack", "epsilon", "pixels", "perturbs"]
    named = tables.rows(results.cells[columns].drop_duplicates())
    return sorted({(str(cell["dataset"]), tables.setting_of(cell)) for cell in named})


def _stem(dataset: str, setting: Setting) -> str:
    return plots.file_name("matrix", dataset, setting.attack, setting.budget)
