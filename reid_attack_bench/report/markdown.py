"""The report as Markdown: report.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from reid_attack_bench.metrics import catalogue
from reid_attack_bench.report import labels, mean_drop, rows, targeted, transfer
from reid_attack_bench.report.analysis import audit, controls, defences, findings, published, rank_order, same_images
from reid_attack_bench.report.analysis.conclude import Conclusions
from reid_attack_bench.report.analysis.controls import Controls
from reid_attack_bench.report.analysis.leaderboard import order_in_words
from reid_attack_bench.report.labels import markdown_row, markdown_text
from reid_attack_bench.report.paper import write as paper
from reid_attack_bench.report.results import Results, Setting
from reid_attack_bench.text import fenced

PDF_NOTE = "Every plot below is also stored as a PDF with the same name."

_TERMS = (
    "**Rank-1, mAP**: in percent over the valid queries of a data set; the distance of each model is in clean.csv.",
    "**White-box**: the attack was crafted on the model it is evaluated on. **Transfer**: crafted on another model; "
    "per-victim tables show the source with the lowest mAP.",
    "**Worst case at ε**: for each query the lowest Rank-1 hit and, separately, the lowest AP without attack and over "
    "every attack and source of at most ε (attacks on queries, any pixel budget), then the mean over valid queries. "
    "Intervals are 95 % bootstrap intervals over identities.",
    "**Rejected**: a query that a detector rejects is a miss; columns `_as_clean` count it as its clean version.",
    "**Control**: random changes within the same budget, for which no model is needed. **Best control**: the one with "
    "the lowest mAP on that target; one line stands for all. **Transfers**: mAP below the best control's, paired over "
    "queries, by a 95 % bootstrap interval over identities.",
    "**≤**: an upper bound, because cells of that worst case are missing.",
    "**ε**: L∞ budget per colour value, in steps of 1/255 of the colour range.",
    "**Drop**: clean minus attacked, in percentage points.",
    "**Audit**: comparison of steps, epsilon, restarts, noise and transfer on the cells of a victim, by mAP paired "
    "over queries with a 95 % bootstrap interval. A victim with a red flag is ranked below the line. If adaptive "
    "attacks were run on a victim, only they are audited.",
    "**Seeds**: values of an attack with several seeds are means over them, and so are the bounds of their intervals "
    "over queries; the worst case treats every seed as a separate attack. matrix.csv has one row per seed.",
)


def definitions(results: Results | None = None) -> list[str]:
    """Terms of a report, as "**Term**: definition."; those of impersonation only if `results` have any."""
    aims = results is not None and bool(targeted.targeted_cells(results))
    groups: tuple[catalogue.Group, ...] = ("comparison", "verification", "evasion", "visibility", "detection", "cost")
    measures = catalogue.of_group(*groups, *(("targeted",) if aims else ()))
    return [*_TERMS, *(f"**{measure.label}**: {measure.description}." for measure in measures)]


def report_text(results: Results, figures: dict[str, list[Path]], concluded: Conclusions, not_drawn: str = "") -> str:
    """Text of report.md; figures: title → paths relative to the report; not_drawn: what is missing among them."""
    lines = [f"# {markdown_text(results.suite)}: robustness of re-identification models", ""]
    for mark, heading in labels.banners(results).items():
        lines += [f"> **{markdown_text(heading)}.** {labels.MARKS[mark]}", ""]
    lines += [f"- {markdown_text(note)}" for note in results.notes] + [""] * bool(results.notes)
    lines += ["Interactive version in one file: [report.html](report.html).", ""]
    lines += ["## Leaderboard", "", f"Ordered by {order_in_words(results)}. In percent.", ""]
    lines += _leaderboard_lines(results, concluded.board)
    lines += ["", "All columns: [leaderboard.csv](leaderboard.csv). Cells: [matrix.csv](matrix.csv). "]
    lines[-1] += "Without attack: [clean.csv](clean.csv). Cost of attacks: [costs.csv](costs.csv)."
    lines += _missing_lines(results)
    lines += _audit_lines(concluded.flags)
    lines += _defence_lines(results, concluded.gains)
    lines += _same_image_lines(same_images.on_targets_alone(results, concluded.same_images))
    lines += _finding_lines(concluded.claims)
    lines += _transfer_lines(results, concluded.controls)
    lines += _order_lines(concluded.orders)
    lines += _mean_drop_lines(concluded)
    lines += _attack_lines(results, concluded.controls)
    lines += _targeted_lines(results)
    lines += paper.index_lines(results)
    lines += ["", PDF_NOTE, *(["", not_drawn] if not_drawn else [])]
    for title, paths in figures.items():
        if paths:
            lines += ["", f"## {title}", ""]
            lines += [f"![{path.stem}]({quote(path.as_posix(), safe='/@+=')})\n" for path in paths]
            lines[-1] = lines[-1].rstrip()
    lines += ["", "## Definitions", "", *(f"- {definition}" for definition in definitions(results))]
    lines += ["", "## How to reproduce", ""]
    if results.record.command:
        lines += [*fenced([results.record.command], "sh"), ""]
    lines += [f"Seed {results.seed}. Versions, machine and times of each step are in the manifest of the run."]
    return "\n".join(lines) + "\n"


def _leaderboard_lines(results: Results, board: pd.DataFrame) -> list[str]:
    epsilons = rows.epsilons(results.settings)
    header = ["#", "victim", "defence", "data set", "queries", "clean Rank-1", "clean mAP"]
    for epsilon in epsilons:
        header += [f"worst Rank-1, ε = {epsilon}", f"worst mAP, ε = {epsilon}"]
    lines = [markdown_row(header), markdown_row(["--:", "---", "---", "---", *["--:"] * (len(header) - 4)])]
    below = False
    for row in rows.rows(board):
        if rows.is_unverified(row) and not below:
            lines.append(markdown_row(["", "**unverified**: see the audit", *[""] * (len(header) - 2)]))
            below = True
        texts = ["" if rows.is_missing(row["rank"]) else str(row["rank"]), row["victim"], row["defence"]]
        texts += [labels.with_marks(row)]
        texts += [rows.format_value("queries", row["queries"])]
        texts += [rows.with_interval(row, "clean_rank1"), rows.with_interval(row, "clean_mAP")]
        for epsilon in epsilons:
            bound = "≤ " if int(row[f"worst_e{epsilon}_missing"]) else ""
            for metric in labels.METRICS:
                shown = rows.with_interval(row, f"worst_e{epsilon}_{metric}")
                texts.append(bound + shown if shown else "")
        lines.append(markdown_row(map(markdown_text, texts)))
    return lines


def _defence_lines(results: Results, gains: pd.DataFrame) -> list[str]:
    if gains.empty:
        return []
    lines = [
        "",
        f"## Defences and their undefended baselines, ε = {results.headline_epsilon}/255",
        "",
        "mAP in percent. Plain: the strongest attack that does not know the defence, crafted on the victim or on its "
        "undefended baseline; adaptive: the strongest attack that does; worst: for each query the lowest without "
        "attack and over all attacks of at most this ε. A rejected query is a miss, or counts as its clean version in "
        "the column that says so. The gain over the baseline is paired over queries, with a 95 % bootstrap interval "
        "over identities. ≤, ≥, ≈: bounds, because cells are missing.",
        "",
        markdown_row(list(defences.WORDS)),
        markdown_row(["---", "---", *["--:"] * (len(defences.WORDS) - 2)]),
    ]
    return lines + [markdown_row(map(markdown_text, defences.in_words(row))) for row in rows.rows(gains)]


def _same_image_lines(table: list[rows.Row]) -> list[str]:
    if not table:
        return []
    lines = [
        "",
        "## Defences and their undefended baselines on the same images",
        "",
        "mAP in percent, of images crafted on the baseline. Drop more by: drop of the defended victim under attack "
        "minus that of its baseline, in points, with a 95 % t-interval over identities: the attack is amplified where "
        "it is above 0 and damped where it is below. Rank-1 and other relations: same_images.csv.",
        "",
        markdown_row(list(same_images.WORDS)),
        markdown_row(["---", "---", *["--:"] * (len(same_images.WORDS) - 2)]),
    ]
    return lines + [markdown_row(map(markdown_text, same_images.in_words(row))) for row in table]


def _audit_lines(flags: list[audit.Flag]) -> list[str]:
    raised = [flag for flag in flags if flag.severity != "note"]
    lines = ["", "## Audit", ""]
    if raised:
        lines += [
            "Signs that the robustness of a victim is overestimated. A victim with a red flag is ranked below the "
            "line; amber: something is left to do.",
            "",
            markdown_row(["victim", "data set", "", "flag", "evidence"]),
            markdown_row(["---"] * 5),
        ]
        shown = [(f.victim, f.dataset, f.severity, f.name, f.evidence) for f in raised]
        lines += [markdown_row(map(markdown_text, texts)) for texts in shown]
    elif any(flag.name != "not audited" for flag in flags) or not flags:
        lines += ["No victim shows signs of gradient masking or of weak attacks."]
    notes = audit.notes(flags)
    return lines + [""] * bool(notes) + [f"- {markdown_text(note)}" for note in notes]


def _finding_lines(claims: list[findings.ClaimResult]) -> list[str]:
    if not claims:
        return []
    lines = [
        "",
        "## Findings",
        "",
        findings.INTRODUCTION,
    ]
    lines += ["", markdown_row(list(findings.WORDS))]
    lines.append(markdown_row(["---", "---", "---", "---", "--:", "---", "--:", "--:", "---"]))
    return lines + [markdown_row(map(markdown_text, findings.in_words(each))) for each in claims]


def _transfer_lines(results: Results, compared: Controls) -> list[str]:
    """Transferred attacks compared with controls, and the controls at each epsilon."""
    found, measured = transfer.lines(results, compared), transfer.control_lines(results)
    if not found:
        return []
    lines = ["", "## Transfer against controls", "", transfer.INTRODUCTION, ""]
    lines += [markdown_row(transfer.HEADS), markdown_row([*["---"] * 5, "--:", "--:", "---", "--:", "--:"])]
    lines += [markdown_row(map(markdown_text, texts)) for texts in found]
    if measured:
        lines += ["", "Controls, means over targets; the best at each epsilon is the one with the lowest mAP.", ""]
        lines += [markdown_row(transfer.CONTROL_HEADS), markdown_row([*["---"] * 3, "--:", "--:", "--:", "---"])]
        lines += [markdown_row(map(markdown_text, texts)) for texts in measured]
    return lines


def _order_lines(orders: pd.DataFrame) -> list[str]:
    """Orders of attacks on two data sets, compared."""
    if orders.empty:
        return []
    lines = ["", "## Order of attacks across data sets", "", rank_order.INTRODUCTION, ""]
    lines += [markdown_row(rank_order.WORDS), markdown_row(["---", "--:", "---", "---", *["--:"] * 4, "---"])]
    lines += [markdown_row(map(markdown_text, rank_order.in_words(row))) for row in rank_order.shown(orders)]
    found = rank_order.reversals(orders)
    return lines + [""] * bool(found) + [f"- {markdown_text(line)}" for line in found]


def _mean_drop_lines(concluded: Conclusions) -> list[str]:
    found = mean_drop.lines(concluded.mean_drops, concluded.controls.names)
    if not found:
        return []
    lines = ["", "## Mean drop rate (mDR)", "", mean_drop.INTRODUCTION, "", markdown_row(mean_drop.HEADS)]
    lines.append(markdown_row([*["---"] * 6, *["--:"] * 4]))
    return [*lines, *(markdown_row(map(markdown_text, texts)) for texts in found), "", "As CSV: [mdr.csv](mdr.csv)."]


_ATTACK_HEADS = (
    "attack", "ε", "pixels", "source", "target", "data set", "Rank-1", "per seed", "mAP", "SSIM", "checkerboard",
)  # fmt: skip


def _attack_lines(results: Results, compared: Controls) -> list[str]:
    """Values of each attack on the relations of the suite (default: white-box), next to published results.

    One line for each target and budget, the best control, stands for all controls.
    """
    relations = results.relations
    every = [cell for cell in rows.ordered_cells(results) if cell.relation in relations]
    if not every:
        return []
    cells = [cell for cell in every if not controls.is_control(cell)]
    by_seed: dict[tuple[Setting, str, str, str], list[str]] = {}
    for cell in cells:
        by_seed.setdefault(cell.place, []).append(f"{cell.value('rank1'):.1f}" if cell.ok else "–")
    lines = [
        "",
        f"## Attack by attack: {', '.join(relations)}",
        "",
        "In percent, means over seeds. Paper: Rank-1 / mAP reported by Wang et al. (CVPR 2020) for this data set, "
        "architecture, attack and budget; blank if not reported.",
    ]
    transferred = any(not cell.own for cell in cells)
    header = [*_ATTACK_HEADS, *["against the best control"] * transferred, "paper"]
    lines += ["", markdown_row(header), markdown_row([*["---"] * 6, *["--:"] * 5, *["---"] * (len(header) - 11)])]
    victims = sorted({(cell.target, cell.dataset) for cell in every})
    quoted: list[str] = []
    clean = {(row.victim, row.dataset): row for row in results.clean}
    for victim, dataset in victims:
        row = clean.get((victim, dataset))
        if row is not None and row.ok:
            values = [f"{row.value(name):.1f}" for name in ("rank1", "mAP")]
            quoted.append(_paper_text(published.clean_result(results, victim, dataset)))
            texts = ["clean", "0", "", "", victim, dataset, values[0], "", values[1], "", ""]
            texts += [""] * transferred + [quoted[-1]]
            lines.append(markdown_row(map(markdown_text, texts)))
    for texts in transfer.best_control_lines(every, compared).values():
        lines.append(markdown_row(map(markdown_text, [*texts, *[""] * transferred, ""])))
    for cell in rows.over_seeds(cells):
        setting = cell.setting
        seeds = by_seed[cell.place]
        elsewhere = f" (fitted on {cell.fitted_on})" if cell.fitted_on not in ("", cell.dataset) else ""
        texts = [setting.attack + elsewhere, str(setting.epsilon), str(setting.pixels or ""), cell.source, cell.target]
        texts += [cell.dataset, rows.format_number(cell.values, "rank1", 1), ", ".join(seeds) if len(seeds) > 1 else ""]
        texts += [
            rows.format_number(cell.values, "mAP", 1),
            rows.format_number(cell.values, "ssim", 3),
            rows.format_number(cell.values, "grid", 3),
        ]
        texts += [compared.verdict(cell)] * transferred
        quoted.append(_paper_text(published.result(results, cell)))
        lines.append(markdown_row(map(markdown_text, [*texts, quoted[-1]])))
    return [*lines, "", published.DIFFERENCES] if any(quoted) else lines


def _paper_text(line: published.Published | None) -> str:
    if line is None:
        return ""
    note = f"; {line.note}" if line.note else ""
    return f"{line.rank1:.1f} / {line.mAP:.1f} ({line.source}, Table {line.table}{note})"


def _targeted_lines(results: Results) -> list[str]:
    found = targeted.lines(results)
    if not found:
        return []
    heads = targeted.heads()
    lines = ["", "## Impersonation", "", targeted.INTRODUCTION, "", markdown_row(heads)]
    lines.append(markdown_row([*["---"] * 5, *["--:"] * (len(heads) - 5)]))
    return lines + [markdown_row(map(markdown_text, texts)) for texts in found]


def _missing_lines(results: Results) -> list[str]:
    reasons = Counter(cell.status for cell in results.cells if not cell.ok)
    if not reasons:
        return []
    counted = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    lines = ["", f"{sum(reasons.values())} of {len(results.cells)} cells have no values (empty, never zero):", ""]
    return lines + [f"- {count} × {markdown_text(reason)}" for reason, count in counted]
