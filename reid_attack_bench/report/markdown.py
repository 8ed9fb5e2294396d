"""report.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from reid_attack_bench.metrics import catalogue
from reid_attack_bench.report import labels, rows
from reid_attack_bench.report.analysis import audit, defences, findings, published
from reid_attack_bench.report.analysis.conclude import Conclusions
from reid_attack_bench.report.paper import write as paper
from reid_attack_bench.report.results import Results, Setting

PDF_NOTE = "Every plot below is also stored as a PDF of the same name."

_TERMS = (
    "**Rank-1, mAP**: in percent over the valid queries of a data set; the distance of each model is in clean.csv.",
    "**White-box**: the attack was crafted on the model it is evaluated on. **Transfer**: crafted on another model; "
    "tables of victims show the source that leaves the lowest mAP.",
    "**Worst case at ε**: for each query the lowest Rank-1 hit and, separately, the lowest AP over every attack and "
    "source at that ε (attacks on queries, any pixel budget), then the mean over valid queries. Intervals are 95 % "
    "bootstrap intervals over queries.",
    "**≤**: some cells of that worst case are missing, so the true worst case can only be lower.",
    "**ε**: L∞ budget per colour value, in steps of 1/255 of the colour range.",
    "**Drop**: clean minus attacked, in percentage points.",
    "**Audit**: steps, epsilon, restarts, noise and transfer compared on the victim's own cells, by mAP on the same "
    "queries with a 95 % bootstrap interval. A red flag puts a victim below the line. Where adaptive attacks were run, "
    "they alone speak for it.",
    "**Seeds**: an attack that was fitted and crafted with several seeds shows its mean over them, with their mean "
    "interval over queries; the worst case takes every seed as an attack of its own. matrix.csv holds each.",
)


def definitions() -> list[str]:
    """The terms of a report, "**Term**: definition."."""
    measures = catalogue.of_group("visibility", "detection")
    return [*_TERMS, *(f"**{measure.label}**: {measure.description}." for measure in measures)]


def report_text(results: Results, pictures: dict[str, list[Path]], concluded: Conclusions) -> str:
    """report.md.

    pictures: title → paths relative to the report.
    """
    synthetic = labels.is_synthetic(results)
    lines = [f"# {_plain(results.suite)}: robustness of re-identification models", ""]
    if synthetic:
        lines += ["> **Synthetic data.** The figures say nothing about how a model does on photographs of people.", ""]
    lines += [f"- {_plain(note)}" for note in results.notes] + [""] * bool(results.notes)
    lines += ["The same to sort, filter and look into, in one file: [report.html](report.html).", ""]
    lines += ["## Leaderboard", "", f"Ordered by worst-case mAP at ε = {results.headline_epsilon}/255. In percent.", ""]
    lines += _leaderboard_lines(results, concluded.board)
    lines += ["", "All columns: [leaderboard.csv](leaderboard.csv). Every cell: [matrix.csv](matrix.csv). "]
    lines[-1] += "Without attack: [clean.csv](clean.csv)."
    lines += _missing_lines(results)
    lines += _audit_lines(concluded.flags)
    lines += _defence_lines(results, concluded.gains)
    lines += _finding_lines(concluded.claims)
    lines += _attack_lines(results)
    lines += paper.index_lines(results)
    lines += ["", PDF_NOTE]
    for title, paths in pictures.items():
        if paths:
            lines += ["", f"## {title}", ""]
            lines += [f"![{path.stem}]({quote(path.as_posix(), safe='/@+=')})\n" for path in paths]
            lines[-1] = lines[-1].rstrip()
    lines += ["", "## Definitions", "", *(f"- {definition}" for definition in definitions())]
    lines += ["", "## How to reproduce", ""]
    if results.record.command:
        lines += ["```sh", results.record.command, "```", ""]
    lines += [f"Seed {results.seed}. Versions, machine and times of each step are in the manifest of the run."]
    return "\n".join(lines) + "\n"


def _leaderboard_lines(results: Results, board: pd.DataFrame) -> list[str]:
    epsilons = rows.epsilons(results.settings)
    header = ["#", "victim", "defence", "data set", "queries", "clean Rank-1", "clean mAP"]
    for epsilon in epsilons:
        header += [f"worst Rank-1, ε = {epsilon}", f"worst mAP, ε = {epsilon}"]
    lines = [_table_line(header), _table_line(["--:", "---", "---", "---", *["--:"] * (len(header) - 4)])]
    below = False
    for row in rows.rows(board):
        if row["audit"] and not below:
            lines.append(_table_line(["", "**unverified**: see the audit", *[""] * (len(header) - 2)]))
            below = True
        texts = ["" if rows.is_missing(row["rank"]) else str(row["rank"]), row["victim"], row["defence"]]
        texts += [row["dataset"] + (" (synthetic)" if row["synthetic"] else "")]
        texts += [rows.format_value("queries", row["queries"])]
        texts += [rows.with_interval(row, "clean_rank1"), rows.with_interval(row, "clean_mAP")]
        for epsilon in epsilons:
            bound = "≤ " if int(row[f"worst_e{epsilon}_missing"]) else ""
            for metric in labels.METRICS:
                shown = rows.with_interval(row, f"worst_e{epsilon}_{metric}")
                texts.append(bound + shown if shown else "")
        lines.append(_table_line([_plain(value) for value in texts]))
    return lines


def _defence_lines(results: Results, gains: pd.DataFrame) -> list[str]:
    if gains.empty:
        return []
    lines = [
        "",
        f"## Defences beside their twins, ε = {results.headline_epsilon}/255",
        "",
        "mAP in percent. Plain: the strongest attack that does not know the defence, crafted on the victim or on its "
        "twin; adaptive: the strongest that does; worst: for each query the lowest over all of them. The gain is on "
        "the same queries, with a 95 % bootstrap interval.",
        "",
        _table_line(list(defences.WORDS)),
        _table_line(["---", "---", *["--:"] * 7]),
    ]
    return lines + [_table_line([_plain(text) for text in defences.in_words(row)]) for row in rows.rows(gains)]


def _audit_lines(flags: list[audit.Flag]) -> list[str]:
    red = [flag for flag in flags if flag.severity == "red"]
    lines = ["", "## Audit", ""]
    if red:
        lines += ["Signs that a victim looks more robust than it is; it stands below the line until they are gone.", ""]
        lines += [_table_line(["victim", "data set", "flag", "evidence"]), _table_line(["---"] * 4)]
        lines += [_table_line([_plain(text) for text in (f.victim, f.dataset, f.name, f.evidence)]) for f in red]
    elif any(flag.name != "not audited" for flag in flags) or not flags:
        lines += ["No victim shows signs of masked gradients or of attacks that were too weak."]
    notes = audit.notes(flags)
    return lines + [""] * bool(notes) + [f"- {_plain(note)}" for note in notes]


def _finding_lines(claims: list[findings.ClaimResult]) -> list[str]:
    if not claims:
        return []
    lines = [
        "",
        "## Findings",
        "",
        "What the suite claims, and whether this run bears it out. A difference is that of the ",
    ]
    lines[-1] += "higher side minus the lower one, with a 95 % t-interval over seeds; the claim is that it is positive."
    lines += ["", _table_line(list(findings.WORDS))]
    lines.append(_table_line(["---", "---", "---", "---", "--:", "--:", "--:", "---"]))
    return lines + [_table_line([_plain(text) for text in findings.in_words(each)]) for each in claims]


def _attack_lines(results: Results) -> list[str]:
    """Each attack on the cells that the suite is about, or white-box, and the paper's figure where there is one."""
    relations = results.relations
    cells = [cell for cell in rows.ordered_cells(results) if cell.relation in relations]
    if not cells:
        return []
    by_seed: dict[tuple[Setting, str, str, str], list[str]] = {}
    for cell in cells:
        by_seed.setdefault(cell.place, []).append(f"{cell.value('rank1'):.1f}" if cell.ok else "–")
    lines = [
        "",
        f"## Attack by attack: {', '.join(relations)}",
        "",
        "In percent, means over seeds. Paper: the Rank-1 / mAP that Wang et al. (CVPR 2020) print for this data set, "
        "architecture, attack and budget; blank where they print none.",
    ]
    header = ["attack", "ε", "pixels", "source", "target", "data set", "Rank-1", "of each seed", "mAP", "SSIM", "grid"]
    lines += ["", _table_line([*header, "paper"]), _table_line([*["---"] * 6, *["--:"] * 5, "---"])]
    victims = sorted({(cell.target, cell.dataset) for cell in cells})
    clean = {(row.victim, row.dataset): row for row in results.clean}
    for victim, dataset in victims:
        row = clean.get((victim, dataset))
        if row is not None and row.ok:
            values = [f"{row.value(name):.1f}" for name in ("rank1", "mAP")]
            paper = _paper_text(published.clean_result(results, victim, dataset))
            texts = ["clean", "0", "", "", victim, dataset, values[0], "", values[1], "", "", paper]
            lines.append(_table_line([_plain(text) for text in texts]))
    for cell in rows.over_seeds(cells):
        setting = cell.setting
        seeds = by_seed[cell.place]
        texts = [setting.attack, str(setting.epsilon), str(setting.pixels or ""), cell.source, cell.target]
        texts += [cell.dataset, rows.format_number(cell.values, "rank1", 1), ", ".join(seeds) if len(seeds) > 1 else ""]
        texts += [
            rows.format_number(cell.values, "mAP", 1),
            rows.format_number(cell.values, "ssim", 3),
            rows.format_number(cell.values, "grid", 3),
        ]
        texts.append(_paper_text(published.result(results, cell)))
        lines.append(_table_line([_plain(text) for text in texts]))
    return lines


def _paper_text(line: published.Published | None) -> str:
    if line is None:
        return ""
    note = f"; {line.note}" if line.note else ""
    return f"{line.rank1:.1f} / {line.mAP:.1f} ({line.source}, Table {line.table}{note})"


def _missing_lines(results: Results) -> list[str]:
    reasons = Counter(cell.status for cell in results.cells if not cell.ok)
    if not reasons:
        return []
    counted = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    lines = ["", f"{sum(reasons.values())} of {len(results.cells)} cells have no figures (empty, never zero):", ""]
    return lines + [f"- {count} × {_plain(reason)}" for reason, count in counted]


def _table_line(texts: list[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _plain(value: object) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = "" if rows.is_missing(value) else " ".join(str(value).split())
    for special in "\\|*_`<[":
        line = line.replace(special, f"\\{special}" if special != "<" else "&lt;")
    return line
