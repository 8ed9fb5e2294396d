"""Procedural person ReID data: four domains, rendered from a seed in seconds, for tests, examples and ablations.

`render_domain` returns the splits of a domain. `identity` draws identities, `person` and `cloth` render their bodies
and clothes, `outfit` what they share, `scene` their background and occluders, `camera` the image; `domains` defines the
domains.
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
