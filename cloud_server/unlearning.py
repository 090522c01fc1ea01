"""Take out what a robot has taught: a head of the other robots' sums is what it is without it.

What gradient rounds have learned cannot be taken apart by robots, so the new checkpoint is the
closed form again, and further rounds go on from there. Each step may be done once more after a
crash: the robot leaves the register, the checkpoint is made, its sums are removed.
"""

from collections.abc import Iterator
from contextlib import suppress

from cloud_server.robots.register import Register
from cloud_server.rounds.sums_exchange import (
    SUMS_ROBOTS,
    checkpoint_of,
    closed_form,
    head_of,
    space_of,
)
from cloud_server.runs.run_store import require_no_run
from cloud_server.state.checkpoints import Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import load_settings
from cloud_server.state.sums.sums_store import SumsStore
from fleet_model.bundle import TRAINER, parse_trainer
from fleet_model.durable import remove_durably
from fleet_model.errors import SettingsError
from fleet_model.types import SUMS

RIDGE = "ridge"  # of sums that no round has made a head of


def unlearn(server_dir: ServerDirectory, register: Register, name: str) -> Iterator[str]:
    """Forget a robot, and save the head of the others' sums as a new checkpoint; say what was done.

    Args:
        server_dir: of the lineage that this server trains; its server may run, but for a run. Of
            a site relay, which may run: it makes no head, and tells sums without the robot at
            the next exchange.
        register: who may take part.
        name: of a robot in the register, or of one whose sums are left.

    Raises:
        SettingsError: a run goes on, there is no such robot, no other robot has told sums, or they
            would need noise.
        CheckpointError: the newest checkpoint is damaged.
    """
    if server_dir.is_relay:
        yield from _unlearn_behind(server_dir, register, name)
        return
    settings = load_settings(server_dir.settings)
    if settings.privacy.mode != "off":
        raise SettingsError(
            f"{name} cannot be unlearned: the new head would be made of the other robots' sums, "
            f'which get no noise, and privacy.mode is "{settings.privacy.mode}". `cloud-server '
            f"robots forget {server_dir.root} {name}` keeps it out of further rounds; to unlearn "
            'it, set privacy.mode = "off". Nothing is changed'
        )
    store, checkpoints = SumsStore(server_dir.sums), Checkpoints(server_dir.checkpoints)
    with server_dir.locked("train"):
        require_no_run(server_dir)
        newest = checkpoints.latest()
        head, space = space_of(
            parse_trainer((server_dir.model_of(newest.version) / TRAINER).read_bytes())
        )
        told = name in store.robots()
        others = store.of(space, without=name)
        if not others:
            raise SettingsError(
                f"{name} cannot be unlearned: no other robot has told sums to make a head of; "
                f"`cloud-server train {server_dir.root} --closed-form ridge` asks for them. "
                "Nothing is changed"
            )
        yield _forgotten(register, name, told=told)
        before = store.head()
        method = RIDGE if before is None else before.method
        solved = head_of(others, method, settings.checks, name)
        record = checkpoints.record(newest.version)
        published = DirectoryStore(server_dir.store).published(server_dir.lineage)
        version = max([*checkpoints.saved(), *published]) + 1
        checkpoints.save(checkpoint_of(solved, head, newest, version))
        store.note(closed_form(solved, method, version, unlearned=name))
        if told:
            store.forget(name)
    yield closed_form(solved, method, version, name).words
    if not told:
        yield f"{name} had told no sums: what it taught was in gradient rounds only"
    if newest.version and (record is None or SUMS_ROBOTS not in record.metrics):
        yield (
            f"version {newest.version} had been trained by gradients, which cannot be taken apart: "
            f"version {version} begins again with the closed form; `cloud-server train "
            f"{server_dir.root}` goes on from it"
        )
    for one, why in closed_form(solved, method, version).left_out.items():
        yield f"left out: {one} ({why})"
    yield (
        f"robots run what they have until `cloud-server models publish {server_dir.root} "
        f"{version}`; versions before {version} still hold what {name} taught"
    )


def _unlearn_behind(server_dir: ServerDirectory, register: Register, name: str) -> Iterator[str]:
    """Take a robot out of what a site relay tells; the order is what lets the relay run on.

    First the register: from then on the relay keeps no sums of the robot. Then the sums, while the
    relay adds up none, and its last answer, which holds them.
    """
    store = SumsStore(server_dir.sums)
    told = name in store.robots()
    yield _forgotten(register, name, told=told)
    with store.changing():
        told = name in store.robots()  # it may have since
        for answer in server_dir.relayed.glob(f"{SUMS}-*.answer"):
            with suppress(FileNotFoundError):  # a later round took its place
                remove_durably(answer)
        if told:
            store.forget(name)
    if not told:
        yield f"{name} had told no sums: what it taught was in gradient rounds only"
        return
    yield (
        f"the sums of {name} are removed. The fleet's server still has the sum of this building "
        "with it, until the next exchange: begin one there with `cloud-server train DIR "
        "--closed-form METHOD`, when another robot of this building is online; it also begins "
        "again after what gradient rounds have learned. Where there is no other robot, take the "
        "building out: `cloud-server robots forget DIR RELAY --unlearn`"
    )


def _forgotten(register: Register, name: str, *, told: bool) -> str:
    """Take a robot out of the register, if the same command has not done so before."""
    if told and register.by_name(name) is None:
        return f"{name} is not in the register any more"
    gone = register.forget(name)
    return f"forgotten {gone.name} at site {gone.site}: {gone.fingerprint}"
