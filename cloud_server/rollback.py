"""Give robots a model by command: one that the gate has withheld, or an older one again.

Both are new releases. A version's number never goes back, so that an old answer of the server,
played to a robot again, is never newer than what it has. The checkpoint goes with the release: the
next run begins with the weights that robots run. See docs/decisions/0024-gate.md.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from cloud_server.models.export import Progress
from cloud_server.models.publish import (
    ASIDE,
    exported,
    imported_file,
    leave_withheld,
    prune,
    publish,
    released_version,
)
from cloud_server.models.release_log import (
    BY_PUBLISH,
    BY_ROLLBACK,
    Release,
    ReleaseKind,
    ReleaseLog,
    SiteMeasures,
)
from cloud_server.runs.run_store import require_no_run
from cloud_server.signing.signing import offer, require_may_offer
from cloud_server.sites.site_models import site_models
from cloud_server.state.checkpoints import WEIGHTS, Checkpoints
from cloud_server.state.directory import ServerDirectory
from cloud_server.state.kit import write_kit
from cloud_server.state.model_store import DirectoryStore
from cloud_server.state.settings import PublishSettings, load_settings
from cloud_server.state.words import names
from fleet_model.errors import BundleError, SettingsError, WithheldError
from fleet_model.protocol.proof import utc_now
from fleet_model.weights import write_weights


def publish_checkpoint(
    server_dir: ServerDirectory, settings: PublishSettings, version: int, progress: Progress
) -> int:
    """Publish a checkpoint that is not published, whatever the gate has said of it.

    Returns:
        The version that robots get: another number if there are newer checkpoints.

    Raises:
        BundleError: it is published already.
        SettingsError: a run or a rollout on the channel goes on.
        CheckpointError: it is damaged or gone.
        ExportError: what was exported does not compute what the model computes.
    """
    store, checkpoints = DirectoryStore(server_dir.store), Checkpoints(server_dir.checkpoints)
    releases = ReleaseLog(server_dir.releases)
    with server_dir.locked("train"):
        require_no_run(server_dir)
        require_may_offer(server_dir, settings.channel)
        known = releases.by_version()
        if version in known and known[version].imported:
            raise BundleError(
                f"version {version} is {known[version].imported}, which was imported: "
                f"`cloud-server models rollback DIR {version}` gives it to robots again"
            )
        number = _half_done(server_dir, settings.channel, "published", version)
        if (
            number is None
            and version in store.published(server_dir.lineage)
            and (version not in known or known[version].published)
        ):
            raise BundleError(
                f"version {version} is published already; `cloud-server models rollback DIR "
                f"{version}` gives it to robots again"
            )
        checkpoint = checkpoints.load(version if number is None else number)
        if checkpoint.version != checkpoints.newest():
            checkpoint = checkpoints.copy(version, next_number(server_dir))
        about = _measures(known.get(version))
        if checkpoint.version != version:
            about["of"] = version
        publish(
            server_dir,
            settings,
            checkpoint,
            progress,
            tell=lambda: releases.add(checkpoint.version, "published", BY_PUBLISH, **about),
        )
    return checkpoint.version


def publish_site(
    server_dir: ServerDirectory,
    settings: PublishSettings,
    version: int,
    site: str,
    progress: Progress,
    force: bool = False,
) -> int:
    """Publish the model that a checkpoint has for one site; nobody gets it before it is assigned.

    It takes a number, so that rounds go on behind it: the newest checkpoint gets the next one.

    Args:
        server_dir: its server may run, but for a run.
        settings: of the channel.
        version: of the checkpoint.
        site: whose model it is.
        progress: is told of each step.
        force: also what the gate holds back from the site.

    Returns:
        The number of the site's model.

    Raises:
        SettingsError: the checkpoint has no model for the site, or a run or a rollout goes on.
        WithheldError: the site's robots have measured that it is worse than what they run.
        CheckpointError: it is damaged or gone.
        ExportError: what was exported does not compute what the model computes.
    """
    checkpoints = Checkpoints(server_dir.checkpoints)
    with server_dir.locked("train"):
        require_no_run(server_dir)
        require_may_offer(server_dir, settings.channel)
        starts = site_models(checkpoints.load(version)).starts()
        if site not in starts:
            raise SettingsError(
                f"--site {site}: checkpoint {version} has models for these sites: {names(starts)}; "
                "robots of other sites get the fleet's"
            )
        measured = site_measures(server_dir, version, site)
        if measured is not None and measured.reasons and not force:
            raise WithheldError(
                f"the model of site {site} at version {version} is held back from it: "
                f"{measured.words}. To publish it all the same: `cloud-server models publish DIR "
                f"{version} --site {site} --force`"
            )
        leave_withheld(server_dir, settings.channel, BY_PUBLISH)
        number, newest = next_number(server_dir), checkpoints.newest()
        assert newest is not None
        # First: killed after it, the number is lost, and given to nothing else.
        checkpoints.copy(newest, number + 1)
        server_dir.store.mkdir(parents=True, exist_ok=True)
        model = server_dir.home / checkpoints.model(version)
        with TemporaryDirectory(prefix=ASIDE, dir=server_dir.store) as aside:
            weights = Path(aside) / WEIGHTS
            write_weights(weights, starts[site])
            with exported(server_dir, settings, model, weights, number, progress) as made:
                DirectoryStore(server_dir.store).add(made, model, server_dir.lineage)
    prune(server_dir, settings)
    return number


def site_measures(server_dir: ServerDirectory, version: int, site: str) -> SiteMeasures | None:
    """Return what the gate has said of a site's model; None where robots have not measured it."""
    release = ReleaseLog(server_dir.releases).by_version().get(version)
    return None if release is None else release.sites.get(site)


def roll_back(
    server_dir: ServerDirectory, settings: PublishSettings, version: int | None = None
) -> tuple[int, int]:
    """Give robots the weights of a published version again; nothing is exported.

    The next run goes on from them. Where robots run an imported model, or get one again, it goes on
    from what rounds have made beside it.

    Args:
        server_dir: its server may run, but for a run.
        settings: of the channel.
        version: None: the newest one that was published before what robots run.

    Returns:
        The version, and the number under which robots get it.

    Raises:
        BundleError: it is not published, lacks files, or there is none before.
        SettingsError: a run or a rollout on the channel goes on.
        CheckpointError: its checkpoint is damaged or gone.
    """
    checkpoints, releases = Checkpoints(server_dir.checkpoints), ReleaseLog(server_dir.releases)
    with server_dir.locked("train"):
        require_no_run(server_dir)
        require_may_offer(server_dir, settings.channel)
        version = _before(server_dir, settings.channel) if version is None else version
        root = releases.root_of(version)
        number = _half_done(server_dir, settings.channel, "rolled_back", root)
        if number is None:
            number, learned = (
                next_number(server_dir),
                _learned_beside(server_dir, settings, version),
            )
            give_again(server_dir, version, number, BY_ROLLBACK, back_to=root)
            if learned is not None:
                checkpoints.copy(learned, number + 1)
        offer(server_dir, settings.channel, number)
    prune(server_dir, settings)
    if checkpoints.model(number) != checkpoints.model(_previous(checkpoints, number)):
        write_kit(server_dir, load_settings(server_dir.settings))  # its labels are others
    return version, number


def give_again(
    server_dir: ServerDirectory, version: int, number: int, by: str, back_to: int | None = None
) -> None:
    """Keep a published version under another number, too: model, checkpoint, release; none offered.

    Args:
        server_dir: of the lineage.
        version: published.
        number: above all that there are.
        by: the command.
        back_to: told to robots, see `DirectoryStore.reissue`.

    Raises:
        BundleError: it is not published, or lacks files.
        CheckpointError: its checkpoint is damaged or gone.
    """
    releases = ReleaseLog(server_dir.releases)
    before = releases.by_version().get(version)
    now = utc_now().isoformat(timespec="seconds")
    store = DirectoryStore(server_dir.store)
    store.reissue(version, number, now, server_dir.lineage, back_to=back_to)
    Checkpoints(server_dir.checkpoints).copy(version, number)
    root = version if before is None else before.root
    releases.add(number, "rolled_back", by, of=root, **_measures(before))


def next_number(server_dir: ServerDirectory) -> int:
    """Return a number that nothing has, also of what was given up half done."""
    published = DirectoryStore(server_dir.store).published(server_dir.lineage)
    return max([*Checkpoints(server_dir.checkpoints).saved(), *published], default=-1) + 1


def _learned_beside(
    server_dir: ServerDirectory, settings: PublishSettings, version: int
) -> int | None:
    """Return the newest checkpoint if it was made beside an imported model; None: it was not."""
    newest = Checkpoints(server_dir.checkpoints).newest()
    known = ReleaseLog(server_dir.releases).by_version()
    _, runs = imported_file(server_dir, settings.channel)
    gets = version in known and known[version].imported
    if newest is None or not (runs or gets):
        return None
    return None if newest in known and known[newest].left_behind else newest


def _previous(checkpoints: Checkpoints, number: int) -> int:
    return max((v for v in checkpoints.versions() if v < number), default=number)


def _before(server_dir: ServerDirectory, channel: str) -> int:
    """Return the newest published version that is older than the weights that robots run."""
    offered = released_version(server_dir, channel)
    root = -1 if offered is None else ReleaseLog(server_dir.releases).root_of(offered)
    older = [v for v in DirectoryStore(server_dir.store).published(server_dir.lineage) if v < root]
    if not older:
        raise BundleError(
            "there is no version before the one that robots run; `cloud-server models list DIR` "
            "shows the versions"
        )
    return older[-1]


def _half_done(
    server_dir: ServerDirectory, channel: str, kind: ReleaseKind, root: int
) -> int | None:
    """Return the number of the same release if a process before this one died in its last step."""
    newest = Checkpoints(server_dir.checkpoints).newest()
    last = None if newest is None else ReleaseLog(server_dir.releases).by_version().get(newest)
    if last is None or last.kind != kind or last.root != root:
        return None
    offered = released_version(server_dir, channel)
    return newest if offered is None or offered < last.version else None


_CARRIED = ("examples", "before", "after", "sites", "imported")


def _measures(release: Release | None) -> dict[str, object]:
    """Return what is told of a version, for another release of it."""
    if release is None:
        return {}
    return {name: getattr(release, name) for name in _CARRIED}
