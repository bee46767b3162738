"""ASGI applications of other projects around Django, as their documentation shows them."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from django.core.asgi import get_asgi_application

django = get_asgi_application()


def fastapi() -> Any:
    from fastapi import FastAPI, Request
    from fastapi.responses import StreamingResponse

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, str]]:
        if os.path.exists(os.environ.get("SITE_STARTUP", "")):
            raise RuntimeError("there is no broker")
        yield {"greeting": "hello"}
        print("the lifespan has ended", flush=True)

    app = FastAPI(lifespan=lifespan)

    @app.get("/api/state")
    async def state(request: Request) -> Any:
        return request.state.greeting

    @app.get("/api/sync")
    def sync() -> Any:
        return "sync"

    @app.get("/api/stream")
    async def stream() -> Any:
        async def pieces() -> AsyncIterator[str]:
            for number in range(3):
                yield f"{number}\n"

        return StreamingResponse(pieces())

    @app.post("/api/count")
    async def count(body: dict[str, Any]) -> Any:
        return len(body)

    app.mount("/", django)
    return app


def sentry() -> Any:
    from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

    return SentryAsgiMiddleware(django)


def socketio() -> Any:
    import socketio

    return socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi"), django)


def __getattr__(name: str) -> Any:
    makers = {"fastapi_app": fastapi, "sentry_app": sentry, "socketio_app": socketio}
    return makers[name]()
