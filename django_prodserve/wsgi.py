"""The wrapped application for plain Gunicorn, named in a file of ``plan --gunicorn-conf``."""

from __future__ import annotations

import django

from .arbiter.trial import load_as, try_out
from .middleware.application import build
from .plan.pipeline import plan_now
from .project import settings_bootstrap
from .staticfiles import prepare_static
from .staticfiles.script_name import forget_if_told, settle

settings_bootstrap.prepare_configurations()
django.setup(set_prefix=False)
settle()
_plan = plan_now({})
application = build(_plan, prepare_static(_plan.static_choice))
if _plan.warmup.value != "off":
    load_as(try_out(application, _plan.warmup.value))
if "forwarder_headers" in _plan.gunicorn:
    forget_if_told(_plan.gunicorn["forwarder_headers"].value)
