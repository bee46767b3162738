"""Django under ASGI, for the price of its work: async views, streams, and what they call in threads.

    part               what a worker runs on its loop: the applications and which requests they get
    project            the project's ASGI_APPLICATION, by what it does with HTTP, websockets and lifespan
    road_table         which HTTP requests run on the loop, and why, in one line
    routes             which requests go to an async view; the reactor's thread asks
    chosen_roads       what a project has chosen for single views
    handler            Django's ASGI handler, with calls to a thread only where something can block
    django_middleware  which of Django's own middleware can block, and when
    sending            where a response goes: in one piece, piece by piece, or as a file
    floating           leases for the sync code of websockets
    leases             threads for what may block, each leased to one request; daemon threads of their own

All of it lives in a worker, after the fork; routes and handler may also be built before it. What names no
other thread runs on the event loop's, next to the reactor. The worker calls the handler with a ``Body`` that
has been read and with a ``Sender`` of its own, in one task for each request. It cancels that task when the
client has gone, and answers 503 if the task ends with ``NoThreadFreeError``. An application of the project
gets the same objects, and uses them as ``receive`` and ``send``. Nothing here imports the worker.
"""
