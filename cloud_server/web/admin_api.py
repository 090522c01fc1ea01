"""The operator's routes: runs, their schedule, what goes on. The guard asks for the credential."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field

from cloud_server.runs.runs import Runs
from cloud_server.runs.schedule import MIN_EVERY_S
from fleet_model.errors import FleetError, RoundError, SettingsError
from fleet_model.protocol.routes import (
    ADMIN,
    EVALUATIONS,
    PROFILES,
    RESUME_RUN,
    RUN,
    RUNS,
    STATUS,
    STOP_RUN,
)


class RunRequest(BaseModel):
    """What `cloud-server train` asks."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    rounds: int = Field(ge=1, le=10_000)
    every_s: float | None = Field(default=None, ge=MIN_EVERY_S)  # again and again from now on
    continuous: bool = False  # the next run begins when the last has ended
    closed_form: Literal["off", "ridge", "lda", "ncm"] | None = None  # None: as the settings say


class EvaluationRequest(BaseModel):
    """What `cloud-server evaluate` asks."""

    model_config = ConfigDict(extra="forbid")
    version: int | None = Field(default=None, ge=0)  # None: the newest checkpoint
    robots: tuple[str, ...] = ()  # only these; empty: all that the settings allow


def admin_routes(runs: Runs, status: Callable[[], dict[str, Any]]) -> APIRouter:
    """Return the routes; runs go on while they are served. `status` is asked at every look."""

    @asynccontextmanager
    async def going_on(_: object) -> AsyncIterator[None]:
        runs.go_on()
        yield
        runs.leave()

    router = APIRouter(prefix=ADMIN, tags=["admin"], lifespan=going_on)

    _add_asking_routes(router, runs)
    _add_run_routes(router, runs)

    @router.get(STATUS)
    def fleet_status() -> dict[str, Any]:
        """Return robots, runs, versions."""
        with _told():
            return status()

    return router


def _add_asking_routes(router: APIRouter, runs: Runs) -> None:
    @router.post(EVALUATIONS)
    def start_evaluation(body: EvaluationRequest) -> dict[str, Any]:
        """Let robots measure a checkpoint."""
        with _told():
            return runs.evaluate(body.version, body.robots).as_json()

    @router.post(PROFILES)
    def ask_for_profiles(body: EvaluationRequest) -> dict[str, Any]:
        """Let robots tell profiles of their records, with a checkpoint's model."""
        with _told():
            try:
                return runs.profile(body.version, body.robots).as_json()
            except SettingsError as error:  # this fleet has none
                raise HTTPException(409, str(error)) from None


def _add_run_routes(router: APIRouter, runs: Runs) -> None:
    @router.post(RUNS)
    def start_run(body: RunRequest) -> dict[str, Any]:
        """Start a run, and the schedule of the next ones."""
        with _told():
            try:
                return _started(runs, body)
            except SettingsError as error:  # what was asked for does not suit this fleet
                raise HTTPException(409, str(error)) from None

    @router.get(RUNS)
    def list_runs() -> dict[str, Any]:
        """Return the newest runs, oldest first."""
        return {"runs": [run.as_json() for run in runs.all()]}

    @router.get(RUN)
    def get_run(run_id: str) -> dict[str, Any]:
        """Return one run with its newest rounds."""
        run = runs.shown(run_id)
        if run is None:
            raise HTTPException(
                404, f"there is no run {run_id[:40]}; see `cloud-server runs list DIR`"
            )
        return run

    @router.post(STOP_RUN)
    def stop_run(run_id: str) -> dict[str, Any]:
        """End a run soon."""
        with _told():
            return runs.stop(run_id).as_json()

    @router.post(RESUME_RUN)
    def resume_run(run_id: str) -> dict[str, Any]:
        """Go on with a run that failed or was stopped."""
        with _told():
            return runs.resume(run_id).as_json()


def _started(runs: Runs, body: RunRequest) -> dict[str, Any]:
    if body.continuous and body.every_s is not None:
        raise HTTPException(422, "every_s and continuous: give one of them")
    if not (body.continuous or body.every_s is not None):
        return runs.start(body.rounds, closed_form=body.closed_form).as_json()
    if body.closed_form is not None:
        raise HTTPException(422, "closed_form is of one run: no every_s, not continuous")
    return runs.repeat(body.rounds, body.every_s).as_json()


@contextmanager
def _told() -> Iterator[None]:
    """Answer our errors with their words: 409 if the state of runs does not allow it, else 500."""
    try:
        yield
    except FleetError as error:
        code = 409 if isinstance(error, RoundError) else 500
        raise HTTPException(code, str(error)) from None
