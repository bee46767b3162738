"""As startproject makes it, and one address that never reaches Django: the server alone."""

from django.core.asgi import get_asgi_application

django = get_asgi_application()
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"5")]


async def application(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/nodjango/":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": b"hello"})
    else:
        await django(scope, receive, send)
