"""Liveness and readiness."""

from server.api.operations import Operation
from server.database import DatabaseUnavailable, QueryError
from server.errors import NotReady
from server.handlers.base import BaseHandler

READY_SECONDS = 2.0


class HealthHandler(BaseHandler):
    """``/health``: liveness, which does not depend on any other service (FR-062)."""

    https_exempt = True

    @Operation(name="checkHealth", response="health.json")
    def get(self) -> None:
        """Check that the process responds.

        The response does not depend on the database.
        """
        self.send_json({"status": "healthy"})


class ReadyHandler(BaseHandler):
    """``/health/ready``: readiness, which depends on the database."""

    https_exempt = True

    @Operation(name="checkReadiness", response="ready.json", errors=(NotReady(),))
    async def get(self) -> None:
        """Check that the server can serve requests.

        The server is ready while the database accepts writes and the process is not shutting down.
        """
        if self.request.server.draining:
            raise NotReady
        try:
            await self.services.database.for_request(READY_SECONDS).ping()
        except (DatabaseUnavailable, QueryError):
            raise NotReady from None
        self.send_json({"status": "ready"})
