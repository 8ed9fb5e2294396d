"""mkdocs hooks: the published runs of results/ are pages of the site, and their rows its leaderboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import leaderboard
from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
MARK = "<!-- leaderboard -->"


def on_files(files: Any, *, config: Any) -> None:
    for path in sorted((ROOT / "results").rglob("*")):
        if path.is_file() and path.suffix != ".py" and not path.relative_to(ROOT).parts[1].startswith("."):
            file = File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))
            if path.name == "report.md":  # a run may have a report.html beside it
                file.dest_uri = file.src_uri + ".html"
            files.append(file)


def on_page_markdown(markdown: str, *, page: Any, files: Any, **_: Any) -> str:
    if page.file.src_uri.startswith("results/"):  # a search is for the text
        page.meta["search"] = {"exclude": True}

    def url(path: str) -> str:
        return str(files.src_uris[path].url_relative_to(page.file))

    if MARK not in markdown:
        return markdown
    return markdown.replace(MARK, leaderboard.tables(leaderboard.rows(ROOT / "results"), url))
