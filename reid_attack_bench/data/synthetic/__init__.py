"""Procedural person ReID data: three domains, drawn from a seed in seconds, for tests, examples and ablations.

`render_domain` gives the splits of a domain. An identity (`identity`) is drawn by `person` and dressed by
`cloth`; `scene` puts it in a place, `camera` takes the picture, and `domains` says what differs.
"""

from reid_attack_bench.data.synthetic.domains import DOMAINS, Domain
from reid_attack_bench.data.synthetic.render import RENDERER_VERSION, contact_sheet, render_domain

__all__ = [
    "DOMAINS",
    "RENDERER_VERSION",
    "Domain",
    "contact_sheet",
    "render_domain",
]
