"""A page in a real browser: Debian's chromium, or $CHROMIUM."""

from __future__ import annotations

import os
import shutil

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""


class Visit:
    """A page that is open, and what it complained of or asked for.

    Args:
        address: of the page; it may ask only for what is below `home`.
        ready: selector of what there is when the page is complete.
    """

    def __init__(
        self, browser, address: str, width: int = 1280, dark: bool = False, *,
        home: str = "file:", ready: str = "html[data-ready=true]", scripts: bool = True,
    ) -> None:  # fmt: skip
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if dark else "light",
            java_script_enabled=scripts,
        )
        self.home = home
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.page.wait_for_selector(ready, timeout=30_000, state="attached")
        self.milliseconds = self.page.evaluate("performance.now()")

    def quiet(self) -> None:
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith((self.home, "data:"))] == []

    def column(self, table: str, number: int) -> list[str]:
        return self.page.eval_on_selector_all(
            f"#{table} tbody tr:not(.line) > :nth-child({number})", "cells => cells.map(cell => cell.innerText)"
        )


def faults(page, part: str | None = None) -> list[str]:
    """Serious accessibility faults of an open page, or of a part of it."""
    from axe_playwright_python.sync_playwright import Axe

    return [
        f"{fault['id']}: {node['html'][:120]} {node['failureSummary'][:200]}"
        for fault in Axe().run(page, context=part).response["violations"]
        if fault["impact"] in ("serious", "critical")
        for node in fault["nodes"]
    ]
