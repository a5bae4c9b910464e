"""Load shedding: what would be refused for want of a place is refused before anything else is done for it.

Under five times its capacity the service says no four times as often as yes. A refusal that had gone the whole way,
through the key, the query and the headers, would take twice as much from the images that are served.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.state import State


class LoadSheddingRoute(APIRoute):
    """A route that asks the door of the segmenter first.

    So a caller hears 503 even where the answer to come would have been 401, 422 or 429, it counts against no limit, and
    the log line does not know whose key it was. /v2 asks later, since its statistics count refusals by model.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, behind the door."""
        handle = super().get_route_handler()

        async def handle_if_room(request: Request) -> Response:
            state: State = request.state.maskloop
            state.pipeline.check_admission()
            return await handle(request)

        return handle_if_room
