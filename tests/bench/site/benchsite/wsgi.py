"""As startproject makes it, and one address that never reaches Django: the server alone."""

from django.core.wsgi import get_wsgi_application

django = get_wsgi_application()


def application(environ, start_response):
    if environ["PATH_INFO"] == "/nodjango/":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"hello"]
    return django(environ, start_response)
