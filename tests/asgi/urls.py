"""Views of all kinds, each in the way a project would write it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from django.conf.urls.i18n import i18n_patterns
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import transaction
from django.http import (
    FileResponse,
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.urls import path, re_path
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import condition, require_POST

HERE = Path(__file__)


async def ahello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello {request.GET.get('name', '')}")


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"hello {request.GET.get('name', '')}")


def count(request: HttpRequest) -> HttpResponse:
    request.session["count"] = request.session.get("count", 0) + 1
    return HttpResponse(str(request.session["count"]))


async def acount(request: HttpRequest) -> HttpResponse:
    seen = await request.session.aget("count", 0)
    await request.session.aset("count", seen + 1)
    return HttpResponse(str(seen + 1))


async def flush(request: HttpRequest) -> HttpResponse:
    await request.session.aflush()
    return HttpResponse("flushed")


async def say(request: HttpRequest) -> HttpResponse:
    messages.success(request, "saved")
    return HttpResponseRedirect("/page/")


def page(request: HttpRequest) -> HttpResponse:
    return render(request, "page.html", {"word": "page"})


async def lazy_page(request: HttpRequest) -> TemplateResponse:
    return TemplateResponse(request, "page.html", {"word": "lazy"})


def form(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        return JsonResponse({name: request.POST.getlist(name) for name in sorted(request.POST)})
    return render(request, "form.html")


async def aform(request: HttpRequest) -> HttpResponse:
    return form(request)


@csrf_exempt
async def upload(request: HttpRequest) -> HttpResponse:
    files = {name: [file.name, file.size] for name, file in request.FILES.items()}
    return JsonResponse({"files": files, "fields": dict(request.POST)})


@csrf_exempt
async def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body, content_type=request.headers.get("Content-Type", ""))


async def afail(request: HttpRequest) -> HttpResponse:
    raise ValueError("a view failed")


def fail(request: HttpRequest) -> HttpResponse:
    raise ValueError("a view failed")


async def missing(request: HttpRequest) -> HttpResponse:
    raise Http404("not here")


async def denied(request: HttpRequest) -> HttpResponse:
    raise PermissionDenied


async def suspicious(request: HttpRequest) -> HttpResponse:
    raise SuspiciousOperation("odd")


async def gone(request: HttpRequest) -> HttpResponse:
    return HttpResponse("gone", status=410)


async def redirect(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/é/")


async def afile(request: HttpRequest) -> FileResponse:
    return FileResponse(HERE.open("rb"), as_attachment=True)


def file(request: HttpRequest) -> FileResponse:
    opened = HERE.open("rb")
    opened.seek(100)
    return FileResponse(opened)


async def memory_file(request: HttpRequest) -> FileResponse:
    return FileResponse(io.BytesIO(b"in memory" * 20_000), filename="a.txt")


async def nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


async def none(request: HttpRequest) -> None:
    return None


async def long(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a long text " * 20_000)


async def medium(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a text " * 100)


async def headers(request: HttpRequest) -> HttpResponse:
    response = HttpResponse("headers", reason="Fine")
    response["X-Word"] = "grüße"
    response.set_cookie("a", "1", max_age=10)
    response.set_signed_cookie("b", "2", salt="s")
    response.delete_cookie("c")
    del response.cookies["b"]
    return response


async def bad_header(request: HttpRequest) -> HttpResponse:
    return HttpResponse(headers={"X-Word": "two\nlines"})


async def astream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[str]:
        for number in range(5):
            await asyncio.sleep(0)
            yield f"part {number}\n"

    return StreamingHttpResponse(parts())


def sync_view_async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    return StreamingHttpResponse(parts())


def numbers(failing: bool = False) -> Iterator[str]:
    yield from (f"part {number}\n" for number in range(2000))
    if failing:
        raise ValueError("a stream failed")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(numbers())


async def async_view_sync_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(numbers(), content_type="text/csv")


async def broken_astream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        raise ValueError("a stream failed")

    return StreamingHttpResponse(parts())


async def broken_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(numbers(failing=True))


def is_new(request: HttpRequest) -> str:
    return '"a-tag"'


@condition(etag_func=is_new)
async def conditional(request: HttpRequest) -> HttpResponse:
    return HttpResponse("conditional")


async def who(request: HttpRequest) -> HttpResponse:
    user = await request.auser()  # type: ignore[attr-defined]
    return HttpResponse(str(user))


@login_required
async def private(request: HttpRequest) -> HttpResponse:
    return HttpResponse("private")


@require_POST
async def post_only(request: HttpRequest) -> HttpResponse:
    return HttpResponse("posted")


class Thing(View):
    async def get(self, request: HttpRequest, number: int) -> HttpResponse:
        return JsonResponse({"number": number})

    async def delete(self, request: HttpRequest, number: int) -> HttpResponse:
        return HttpResponse(status=204)


async def speak(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{translation.get_language()} {_('This field is required.')}")


async def activate(request: HttpRequest) -> HttpResponse:
    """Change what is local to a task, step aside, and look again."""
    language, zone = request.GET["language"], request.GET["zone"]
    translation.activate(language)
    timezone.activate(zone)
    for _turn in range(3):
        await asyncio.sleep(0.001)
        seen = await User.objects.filter(username="nobody").acount()
        assert seen == 0
    return HttpResponse(f"{translation.get_language()} {timezone.get_current_timezone_name()}")


def atomic(request: HttpRequest) -> HttpResponse:
    """Store a user, say so when it is committed, and perhaps fail."""
    name = request.GET["name"]
    done = []
    with transaction.atomic():
        User.objects.create(username=name)
        transaction.on_commit(lambda: done.append("committed"))
        if "inner" in request.GET:
            raise ValueError("rolled back")
    if "outer" in request.GET:
        raise ValueError("rolled back with ATOMIC_REQUESTS")
    return HttpResponse(f"{User.objects.filter(username=name).count()} {done}")


async def scope_seen(request: HttpRequest) -> HttpResponse:
    found = request.scope  # type: ignore[attr-defined]
    return HttpResponse(
        f"{found['path']} {request.path} {request.path_info} {request.build_absolute_uri('/x')}"
    )


def views() -> dict[str, Any]:
    """Return all views of this module that need no argument."""
    return {
        name: found
        for name, found in globals().items()
        if callable(found) and getattr(found, "__module__", "") == __name__ and name not in OTHERS
    }


OTHERS = {"numbers", "is_new", "views", "Thing", "HttpResponseBase"}

urlpatterns = [
    *(path(f"{name.replace('_', '-')}/", view, name=name) for name, view in views().items()),
    path("things/<int:number>/", Thing.as_view(), name="thing"),
    re_path(r"^old/(?P<year>\d{4})/$", lambda request, year: HttpResponse(year)),
    *i18n_patterns(path("spoken/", speak, name="spoken")),
]
