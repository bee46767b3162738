"""As startproject makes it, with a default that must never matter."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.other_settings_that_do_not_exist")

application = get_wsgi_application()
