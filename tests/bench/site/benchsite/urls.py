"""Views that do a fixed amount of work of one kind."""

import os
import time

from django.contrib import admin
from django.contrib.auth.models import Permission
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.templatetags.static import static
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

BOOKS = [{"id": n, "title": f"Book <{n}>", "price": n * 1.25, "tags": ["a", "b", "c"]} for n in range(20)]
LOOPS = 23_000  # of burn(): about a millisecond where this was written, with Python 3.13


def burn(milliseconds: int) -> int:
    """Keep the interpreter busy: the same work on every machine and under every load, not the same time."""
    total = 0
    for n in range(milliseconds * LOOPS):
        total += n & 3
    return total


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


def json(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"books": BOOKS})


def db(request: HttpRequest) -> JsonResponse:
    rows = Permission.objects.select_related("content_type").order_by("pk")[:20]
    return JsonResponse({"rows": [[row.pk, row.name, row.content_type.model] for row in rows]})


def template(request: HttpRequest) -> HttpResponse:
    return render(request, "books.html", {"books": BOOKS})


def io(request: HttpRequest) -> HttpResponse:
    time.sleep(0.05)
    return HttpResponse("waited")


def wait(request: HttpRequest) -> HttpResponse:
    """Wait as long as asked, and say which process has."""
    time.sleep(min(float(request.GET.get("ms", "50")), 10_000) / 1000)
    return HttpResponse(str(os.getpid()))


def spin(request: HttpRequest) -> HttpResponse:
    """Compute for about as long as asked, and say which process has."""
    burn(min(int(request.GET.get("ms", "10")), 1000))
    return HttpResponse(str(os.getpid()))


def large(request: HttpRequest) -> HttpResponse:
    return HttpResponse(bytes(5 * 2**20))


def cpu(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(burn(10)))


def mixed(request: HttpRequest) -> HttpResponse:
    total = burn(5)
    time.sleep(0.03)
    return HttpResponse(str(total))


@csrf_exempt
def upload(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(len(request.body)))


def where(request: HttpRequest, name: str) -> HttpResponse:
    """Say under which name a static file is served here."""
    return HttpResponse(static(name))


urlpatterns = [
    path("hello/", hello),
    path("json/", json),
    path("db/", db),
    path("template/", template),
    path("io/", io),
    path("wait/", wait),
    path("spin/", spin),
    path("large/", large),
    path("cpu/", cpu),
    path("mixed/", mixed),
    path("upload/", upload),
    path("where/<str:name>", where),
    path("admin/", admin.site.urls),
]
