"""Malformed and ambiguous requests, and what must come of each.

The rule: what Gunicorn's own pure-Python parser refuses stays refused, whichever parser is installed; what is
refused beyond that says why. Targets with "smuggled" in them must never reach Django, "evil" must never be
believed.
"""

from __future__ import annotations

from . import bodies, framing, heads, proxies, targets

GROUPS = {
    **heads.GROUPS,
    **targets.GROUPS,
    **proxies.GROUPS,
    **bodies.GROUPS,
    **framing.GROUPS,
}
