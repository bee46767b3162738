"""Say what reached Django: each request as JSON, and all of them by client."""

import hashlib
from collections import defaultdict

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse

SEEN: dict[str, list[str]] = defaultdict(list)  # "METHOD /path?query" of each request, by client


def echo(request: HttpRequest) -> HttpResponse:
    """Answer with what the server made of a request; the query asks for other answers.

    ``status`` and ``size`` (bytes of a body of zeros), ``stream`` (no Content-Length), ``unread`` (leave the
    body alone).
    """
    asked = request.GET
    body = hashlib.sha256()
    length = 0
    while not asked.get("unread") and (data := request.read(65536)):
        length += len(data)
        body.update(data)
    if "size" in asked:
        return HttpResponse(bytes(min(int(asked["size"]), 2**24)))
    if "stream" in asked:
        return StreamingHttpResponse(f"{number}\n" for number in range(10))
    if asked.get("status") in ("204", "304"):
        return HttpResponse(status=int(asked["status"]))
    meta = request.META
    headers = {
        name: value for name, value in meta.items() if name.startswith(("HTTP_", "CONTENT_")) and value != ""
    }
    return JsonResponse(
        {
            "method": request.method,
            "path": meta["PATH_INFO"],
            "query": meta["QUERY_STRING"],
            "script": meta["SCRIPT_NAME"],
            "protocol": meta["SERVER_PROTOCOL"],
            "scheme": meta["wsgi.url_scheme"],
            "address": meta["REMOTE_ADDR"],
            "headers": headers,
            "length": length,
            "sha": body.hexdigest(),
        },
        status=int(asked.get("status", 200)),
    )


def seen(request: HttpRequest) -> JsonResponse:
    return JsonResponse(SEEN)


class EchoEverything:
    """Middleware that answers every path but ``/seen/``, and remembers every request."""

    def __init__(self, get_response: object) -> None:
        pass

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info == "/seen/":
            return seen(request)
        meta = request.META
        target = meta["PATH_INFO"] + ("?" if meta["QUERY_STRING"] else "") + meta["QUERY_STRING"]
        SEEN[f"{meta['REMOTE_ADDR']}:{meta.get('REMOTE_PORT', '')}"].append(f"{request.method} {target}")
        answer = echo(request)
        answer["X-Echo"] = "1"  # Django's answer, not the server's
        if not answer.streaming:
            answer["Content-Length"] = str(len(answer.content))  # CommonMiddleware's task
        return answer
