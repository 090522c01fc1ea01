"""The metrics route for Prometheus; the guard asks for the admin credential."""

from fastapi import APIRouter, HTTPException, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from fleet_model.errors import FleetError
from fleet_model.protocol.routes import ADMIN


def metrics_routes(registry: CollectorRegistry) -> APIRouter:
    """Return the route, at the path that scrapers expect and beside the other admin routes."""
    router = APIRouter(tags=["admin"])

    @router.get("/metrics")
    @router.get(f"{ADMIN}/metrics")
    def metrics() -> Response:
        """Return Prometheus' text format."""
        try:
            return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
        except FleetError as error:
            raise HTTPException(500, str(error)) from None

    return router
