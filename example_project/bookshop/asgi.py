"""ASGI config for bookshop project: the pages by Django, the talk in the reading room by Channels."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookshop.settings")

application = pages = get_asgi_application()  # first: it loads the models that the chat needs

try:
    from channels.routing import ProtocolTypeRouter, URLRouter
    from channels.security.websocket import AllowedHostsOriginValidator
except ImportError:  # requirements-chat.txt has not been installed
    pass
else:
    from catalogue.chat import websocket_urlpatterns

    sockets = AllowedHostsOriginValidator(URLRouter(websocket_urlpatterns))
    application = ProtocolTypeRouter({"http": pages, "websocket": sockets})
