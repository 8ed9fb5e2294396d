"""mkdocs hook: published runs are pages of the site."""

from __future__ import annotations

from typing import Any


def on_files(files: Any, **_: Any) -> None:
    for file in files:
        # a run may have a report.html of its own beside its report.md
        if file.src_uri.startswith("results/") and file.src_uri.endswith("/report.md"):
            file.dest_uri = file.src_uri + ".html"


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> None:
    if page.file.src_uri.startswith("results/"):  # a search is for the text
        page.meta["search"] = {"exclude": True}
