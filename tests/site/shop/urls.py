"""Views that show what reached Django."""

import os
import re
import threading
import time
from collections.abc import Iterator

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from django_prodserve.timeouts import request_timeout
from shop.echo import echo


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


def whoami(request: HttpRequest) -> JsonResponse:
    headers = {key: value for key, value in request.META.items() if isinstance(value, str)}
    return JsonResponse({"secure": request.is_secure(), "pid": os.getpid(), "meta": headers})


def boom(request: HttpRequest) -> HttpResponse:
    raise RuntimeError("the view broke")


@request_timeout(60)
def patient(request: HttpRequest) -> HttpResponse:
    time.sleep(3.5)
    return HttpResponse("worth waiting for")


def slow(request: HttpRequest) -> HttpResponse:
    time.sleep(min(float(request.GET.get("seconds", "0.1")), 10))
    return HttpResponse(f"{os.getpid()} {threading.get_ident()}")


def held(request: HttpRequest) -> HttpResponse:
    """Wait for the test, which opens the other end of this pipe."""
    with open(request.GET["pipe"]):
        return HttpResponse()


def named(request: HttpRequest, name: str) -> HttpResponse:
    time.sleep(min(float(request.GET["seconds"]), 10))
    return HttpResponse(name)


LEAKED: list[bytearray] = []


def leak(request: HttpRequest) -> HttpResponse:
    LEAKED.append(bytearray(int(request.GET.get("mib", "5")) * 2**20))
    return HttpResponse(str(os.getpid()))


STUCK = threading.Lock()
STUCK.acquire()


def deadlock(request: HttpRequest) -> HttpResponse:
    with STUCK:
        return HttpResponse()


def spin(request: HttpRequest) -> HttpResponse:
    while True:
        pass


def hold_gil(request: HttpRequest) -> HttpResponse:
    """Backtrack for ever: the regular expression engine never gives up the GIL."""
    re.match(r"(a+)+$", "a" * 60 + "b")
    return HttpResponse()


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(f"{number}\n" for number in range(1000))


def events(request: HttpRequest) -> StreamingHttpResponse:
    """A stream: ``count`` pieces, each a number in ``size`` bytes, ``pause`` seconds apart."""
    asked = request.GET
    count, size, pause = int(asked["count"]), int(asked.get("size", 0)), float(asked.get("pause", 0))

    def pieces() -> Iterator[bytes]:
        for number in range(count):
            yield f"{number}\n".encode().rjust(size, b".")
            time.sleep(pause)

    return StreamingHttpResponse(pieces(), content_type="text/event-stream")


def ticking(request: HttpRequest) -> StreamingHttpResponse:
    def ticks() -> Iterator[str]:
        for _ in range(int(2 * float(request.GET["seconds"]))):
            time.sleep(0.5)
            yield "tick\n"

    return StreamingHttpResponse(ticks())


def settings_module(request: HttpRequest) -> HttpResponse:
    from django.conf import settings

    return HttpResponse(f"{settings.SETTINGS_MODULE} {os.environ['DJANGO_SETTINGS_MODULE']}")


def write(request: HttpRequest) -> HttpResponse:
    """Read, then write, in one transaction: two of them at once are what sqlite's deferred ones cannot do."""
    from django.contrib.sessions.backends.db import SessionStore
    from django.contrib.sessions.models import Session
    from django.db import transaction

    with transaction.atomic():
        before = Session.objects.count()
        SessionStore().create()
    return HttpResponse(str(before))


urlpatterns = [
    path("", hello),
    path("whoami/", whoami),
    path("boom/", boom),
    path("slow/", slow),
    path("held/", held),
    path("named/<path:name>", named),
    path("patient/", patient),
    path("stream/", stream),
    path("events/", events),
    path("ticking/", ticking),
    path("leak/", leak),
    path("deadlock/", deadlock),
    path("spin/", spin),
    path("hold-gil/", hold_gil),
    path("write/", write),
    path("settings/", settings_module),
    path("echo/", csrf_exempt(echo)),
    path("admin/", admin.site.urls),
]
