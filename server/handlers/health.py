"""Is the process alive, and can it work."""

from __future__ import annotations

from server.api.operations import Operation
from server.database import DatabaseUnavailable, QueryError
from server.errors import NotReady
from server.handlers.base import BaseHandler

READY_SECONDS = 2.0


class HealthHandler(BaseHandler):
    """``/health``: liveness, which asks no other service (FR-062)."""

    https_exempt = True

    @Operation(name="checkHealth", response="health.json")
    def get(self) -> None:
        """Check that the process responds.

        The response does not depend on the database.
        """
        self.send_json({"status": "healthy"})

    head = get


class ReadyHandler(BaseHandler):
    """``/health/ready``: readiness, which asks the database."""

    https_exempt = True

    @Operation(name="checkReadiness", response="ready.json", errors=(NotReady,))
    async def get(self) -> None:
        """Check that requests can be served.

        They can while the database accepts writes and the process is not shutting down.
        """
        if self.request.state.draining:
            raise NotReady
        try:
            await self.services.database.for_request(READY_SECONDS).ping()
        except (DatabaseUnavailable, QueryError):
            raise NotReady from None
        self.send_json({"status": "ready"})

    head = get
