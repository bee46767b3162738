"""New rows of a table for all visitors who listen: each process asks the database once for all of its own.

The database is what all workers share, so this needs no other server. A row is seen within ``EVERY`` seconds.
"""

import asyncio
import logging
import math
from collections import deque

from asgiref.sync import sync_to_async
from django.db import DatabaseError, close_old_connections

EVERY = 0.5
QUIET = 15  # seconds without a new row; proxies close connections that are silent for much longer
KEPT = 100  # rows; who reads more slowly has them from the database

log = logging.getLogger(__name__)


class Follower:
    """Follows a table by its primary key."""

    def __init__(self, rows):
        """``rows`` returns the queryset; it is ordered here."""
        self.rows = rows
        self.recent, self.since = deque(), math.inf  # all rows behind this key are among the recent ones
        self.news = asyncio.Event()
        self.listeners, self.asking = 0, None

    async def newest(self):
        """Return the key of the newest row, 0 if there is none."""
        return await self.rows().order_by("-pk").values_list("pk", flat=True).afirst() or 0

    async def follow(self, after):
        """Yield the rows behind this key, then each new one, and None where nothing came for a while."""
        self.listeners += 1
        if self.asking is None:
            self.asking = asyncio.create_task(self._ask())
        try:
            while True:
                news = self.news
                for row in await self._known(after):
                    yield row
                    after = row.pk
                if news is self.news:
                    try:
                        await asyncio.wait_for(news.wait(), QUIET)
                    except asyncio.TimeoutError:
                        yield None
        finally:
            self.listeners -= 1
            if not self.listeners:
                self.asking.cancel()
                self.asking, self.since = None, math.inf
                self.recent.clear()

    async def behind(self, after):
        """Yield the rows behind this key."""
        async for row in self.rows().filter(pk__gt=after).order_by("pk"):
            yield row

    async def _known(self, after):
        if after >= self.since:
            return [row for row in self.recent if row.pk > after]
        return [row async for row in self.behind(after)]

    async def _ask(self):
        """Ask for new rows while anybody listens."""
        after = await self.newest()
        self.since = after
        while True:
            try:
                rows = [row async for row in self.behind(after)]
            except DatabaseError:
                log.exception("No news for those who listen: the database does not answer.")
                await sync_to_async(close_old_connections)()
                rows = []
            for row in rows:
                after = row.pk
                self.recent.append(row)
                if len(self.recent) > KEPT:
                    self.since = self.recent.popleft().pk
            if rows:
                self.news.set()
                self.news = asyncio.Event()
            await asyncio.sleep(EVERY)
