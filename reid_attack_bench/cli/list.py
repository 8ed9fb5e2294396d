"""Command list."""

from __future__ import annotations

import json

import click
from rich.table import Table

from reid_attack_bench.cli import complete
from reid_attack_bench.cli.options import AS_JSON
from reid_attack_bench.errors import BenchError, nearest
from reid_attack_bench.text import PlainConsole

_KINDS = ("attacks", "victims", "datasets", "suites", "protocols")


@click.command("list")
@click.argument("what", metavar="attacks|victims|datasets|suites|protocols", shell_complete=complete.values(*_KINDS))
@AS_JSON
def list_command(what: str, as_json: bool) -> None:
    """List attacks, victims, data sets, suites or protocols by name."""
    rows = _listing(what)
    if as_json:
        print(json.dumps([{"name": name, "about": about, "from": origin} for name, about, origin in rows]))
        return
    table = Table("name", "description", "from", box=None, header_style="bold")
    for row in rows:
        table.add_row(*row)
    PlainConsole().print(table)


def _listing(what: str) -> list[tuple[str, str, str]]:
    """Name, description and origin of all entries of one kind."""
    if what in ("attacks", "victims"):
        from reid_attack_bench import registry

        kind = what[:-1]
        rows = []
        for name in registry.available(kind):
            plugin = registry.find(kind, name)
            about = (plugin.factory.__doc__ or "").strip().split("\n")[0]
            rows.append((name, about, plugin.origin))
        return rows
    if what == "datasets":
        return _datasets()
    if what == "suites":
        from reid_attack_bench.suites import parse

        return [
            (name, " ".join(parse.load(name).description.split()), str(path)) for name, path in parse.shipped().items()
        ]
    if what == "protocols":
        from reid_attack_bench.suites import protocols

        return [
            (name, " ".join(protocols.read(name).description.split()), str(path))
            for name, path in protocols.shipped().items()
        ]
    raise BenchError(f"cannot list '{what}': {nearest(what, _KINDS)}")


def _datasets() -> list[tuple[str, str, str]]:
    from reid_attack_bench import registry
    from reid_attack_bench.data.synthetic import DOMAINS

    rows = [(name, "synthetic, rendered by the bench", "reid-attack-bench") for name in DOMAINS]
    for name in registry.available("data set"):
        plugin = registry.find("data set", name)
        title = getattr(plugin.factory, "title", "") or (plugin.factory.__doc__ or name).strip().split("\n")[0]
        marks = [mark for mark in ("synthetic", "withdrawn") if getattr(plugin.factory, mark, "")]
        rows.append((name, f"{title}, read from disk{''.join(f', {mark}' for mark in marks)}", plugin.origin))
    return rows
