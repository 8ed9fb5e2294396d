"""Paper tables as Markdown."""

from __future__ import annotations

from reid_attack_bench.report.labels import markdown_row, markdown_text
from reid_attack_bench.report.paper.table import PaperTable, Value


def to_markdown(table: PaperTable) -> str:
    """Caption, table and notes; values as **12.3** ± 0.4 [10.1, 14.2], with * for white-box."""
    marks = table.notes
    over = [group for group, count in table.groups for _ in range(count)]
    several = len(table.groups) > 1
    heads = [f"{group}, {head}" if several else head for group, head in zip(over, table.heads, strict=True)]
    has_intervals = any(value.interval for line in table.lines for value in line.values)
    caption = table.caption + (f" {table.intervals}" if has_intervals else "")
    lines = [markdown_text(caption), "", markdown_row(map(markdown_text, [*table.stub, *heads]))]
    lines.append(markdown_row(["---"] * len(table.stub) + ["--:"] * len(heads)))
    for line in table.lines:
        raised = "".join(f"<sup>{marks[note]}</sup>" for note in line.notes)
        stub = [markdown_text(text) for text in line.stub]
        stub[-1] += raised
        lines.append(markdown_row([*stub, *(_value_text(each, marks) for each in line.values)]))
    if marks:
        lines += ["", *(f"<sup>{mark}</sup> {markdown_text(note)}  " for note, mark in marks.items())]
        lines[-1] = lines[-1].rstrip()
    return "\n".join(lines) + "\n"


def _value_text(value: Value, marks: dict[str, str]) -> str:
    raised = "".join(f"<sup>{marks[note]}</sup>" for note in value.notes)
    if not value.text:
        return "–" + raised
    text = f"**{value.text}**" if value.best else value.text
    text += r"\*" if value.own else ""
    text += f" ± {value.spread}" if value.spread else ""
    text += " " + value.interval.replace("[", r"\[") if value.interval else ""
    return text + raised
