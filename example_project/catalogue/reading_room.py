"""The reading room: reviews as they are written, by server-sent events, and a chat, by a websocket."""

import json
from importlib.util import find_spec

from django.core.handlers.asgi import ASGIRequest
from django.http import StreamingHttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_safe

from .live import Follower
from .models import Remark, Review

remarks = Follower(Remark.objects.all)
reviews = Follower(lambda: Review.objects.select_related("book"))

HAS_CHAT = find_spec("channels") is not None


@require_safe
def reading_room(request):
    """Show the last reviews and remarks; the page's script adds what comes."""
    said = [*Remark.objects.order_by("-pk")[:30]][::-1]
    written = Review.objects.select_related("book").order_by("-pk")[:10]
    context = {
        "remarks": said,
        "reviews": written,
        "last_remark": said[-1].pk if said else 0,
        "last_review": written[0].pk if written else 0,
        "has_chat": HAS_CHAT,
    }
    return render(request, "catalogue/reading_room.html", context)


@require_GET
async def feed(request):
    """Stream reviews as they are written: ?after= or what the browser saw last."""
    last = request.headers.get("Last-Event-ID") or request.GET.get("after", "")
    after = int(last) if last.isdecimal() else await reviews.newest()

    async def events():
        yield "retry: 1000\n\n"  # milliseconds until the browser connects again: at a reload, for example
        # A server without an event loop sends nothing before the end: there the browser asks again and again.
        is_live = isinstance(request, ASGIRequest)
        async for review in reviews.follow(after) if is_live else reviews.behind(after):
            if review is None:
                yield ":\n\n"
            else:
                yield f"id: {review.pk}\nevent: review\ndata: {json.dumps(review.as_dict())}\n\n"

    headers = {"Cache-Control": "no-store"}
    return StreamingHttpResponse(events(), content_type="text/event-stream", headers=headers)
