"""Where everything of one server lies: DIR as the operator names it."""

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cloud_server.state.history_file import append_line, newest_lines
from fleet_model.errors import SettingsError

HOLDERS = {  # of a lock that more than one command takes
    "train": "training, a relay or a change of labels goes on here: stop "
    "`cloud-server start {root}` first, or `site-relay start {root}`, or wait until `flwr run` or "
    "`cloud-server labels` has ended",
}


def vacant(root: Path) -> Path:
    """Return the absolute path of a directory that is to be made; SettingsError if it cannot be."""
    root = root.absolute()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise SettingsError(f"{root}: exists and is not empty; choose another directory")
    if not root.name:
        raise SettingsError(f"{root}: cannot be a server directory; choose another one")
    return root


@dataclass(frozen=True, slots=True)
class ServerDirectory:
    """Paths inside a server directory; nothing is created here.

    server.toml      settings, commented
    secrets/         CA, server and signing keys, admin token: mode 0700, never leaves this machine
    certificates/    ca.crt, server.crt
    kit/             what a robot needs to enroll; nothing secret
    robots.json      the register: who may take part, under which name, at which site
    tokens.json      hashes of the tokens by which robots admit themselves
    offenses.json    refused updates in a row, last verdicts
    seen.json        when robots were last seen, unknown keys that asked
    store/           published models: objects by sha256, versions, channels, rollouts, what is
                     signed of them
    runs/            one folder a run: how far it is, and its open round
    runs-apart/      the same of a ServerApp beside a SuperLink of its own
    schedule.json    when runs begin by themselves
    tensorboard/     event files of runs, with log.tensorboard = true
    flower/          Flower's SQLite state
    upstream/        of a site relay: what it is to the fleet's server, as a robot's folder

    What is trained for a channel, its lineage, is in DIR itself for the channel that init made and
    for every channel without a folder of its own, else in DIR/channels/NAME:

    model/           trainer files and initial weights; written once by init
    model-000041/    the same from version 41 on: its labels are others
    checkpoints/     one folder per closed round
    history.jsonl    one line per closed round
    sums/            what robots have told of their features, for heads in closed form
    profiles/        what clients have told of their records, by version
    releases.jsonl   what became of every version: published by whom, withheld why, rolled back
    privacy.json     what [privacy] has spent of each robot: see docs/security.md
    totals.json      sums over the history, made again if it is removed

    See docs/decisions/0014-state-per-channel.md.
    """

    root: Path
    lineage: str = ""  # the channel that these files belong to; "": those in DIR itself

    @property
    def settings(self) -> Path:  # noqa: D102
        return self.root / "server.toml"

    @property
    def secrets(self) -> Path:  # noqa: D102
        return self.root / "secrets"

    @property
    def admin_token(self) -> Path:  # noqa: D102
        return self.secrets / "admin.token"

    @property
    def certificates(self) -> Path:  # noqa: D102
        return self.root / "certificates"

    @property
    def kit(self) -> Path:  # noqa: D102
        return self.root / "kit"

    @property
    def robots(self) -> Path:  # noqa: D102
        return self.root / "robots.json"

    @property
    def tokens(self) -> Path:  # noqa: D102
        return self.root / "tokens.json"

    @property
    def offenses(self) -> Path:  # noqa: D102
        return self.root / "offenses.json"

    @property
    def seen(self) -> Path:  # noqa: D102
        return self.root / "seen.json"

    @property
    def channels(self) -> Path:  # noqa: D102
        return self.root / "channels"

    @property
    def home(self) -> Path:
        """Where the lineage is."""
        return self.channels / self.lineage if self.lineage else self.root

    @property
    def model(self) -> Path:  # noqa: D102
        return self.home / "model"

    @property
    def checkpoints(self) -> Path:  # noqa: D102
        return self.home / "checkpoints"

    def model_of(self, version: int) -> Path:
        """Return the trainer files of a checkpoint; raises CheckpointError if it is damaged."""
        from cloud_server.state.checkpoints import Checkpoints

        return self.home / Checkpoints(self.checkpoints).model(version)

    @property
    def store(self) -> Path:  # noqa: D102
        return self.root / "store"

    @property
    def runs(self) -> Path:  # noqa: D102
        return self.root / "runs"

    @property
    def rehearsed(self) -> Path:
        """Where `cloud-server simulate --workload` leaves adapters: round-000003/SITE/."""
        return self.runs / "rehearsal" / "adapters"

    @property
    def runs_apart(self) -> Path:  # noqa: D102
        return self.root / "runs-apart"

    @property
    def schedule(self) -> Path:  # noqa: D102
        return self.root / "schedule.json"

    @property
    def history(self) -> Path:  # noqa: D102
        return self.home / "history.jsonl"

    @property
    def releases(self) -> Path:  # noqa: D102
        return self.home / "releases.jsonl"

    @property
    def sums(self) -> Path:  # noqa: D102
        return self.home / "sums"

    @property
    def profiles(self) -> Path:  # noqa: D102
        return self.home / "profiles"

    @property
    def totals(self) -> Path:  # noqa: D102
        return self.home / "totals.json"

    @property
    def tensorboard(self) -> Path:  # noqa: D102
        return self.root / "tensorboard"

    @property
    def flower(self) -> Path:  # noqa: D102
        return self.root / "flower"

    @property
    def upstream(self) -> Path:  # noqa: D102
        return self.root / "upstream"

    @property
    def relayed(self) -> Path:
        """Where a site relay keeps its open round, and its last answer as KIND-*.answer."""
        return self.runs / "relay"

    @property
    def is_relay(self) -> bool:
        """Whether it is of a site relay, which has no checkpoints and no runs of its own."""
        return (self.upstream / "agent.toml").exists()

    def of(self, channel: str) -> "ServerDirectory":
        """Return the same directory with what is trained for `channel`."""
        own = channel in (one.lineage for one in self.lineages())
        return replace(self, lineage=channel if own else "")

    def trained(self) -> "ServerDirectory":
        """Return the same directory with what its server trains: see publish.channel."""
        from cloud_server.state.settings import load_settings

        return self.of(load_settings(self.settings).publish.channel)

    def lineages(self) -> "list[ServerDirectory]":
        """Return the directory once for each lineage, the one in DIR itself first."""
        folders = self.channels.iterdir() if self.channels.is_dir() else ()
        names = sorted(folder.name for folder in folders if not folder.name.startswith("."))
        return [replace(self, lineage=name) for name in ("", *names)]

    def require(self) -> None:
        """Raise SettingsError unless `init` has finished here."""
        if not self.settings.exists():
            raise SettingsError(
                f"{self.root}: not a server directory; make one with "
                f"`cloud-server init {self.root} --labels clear,blocked`"
            )

    @contextmanager
    def locked(self, what: str) -> Iterator[None]:
        """Hold the directory: two servers on one directory would overwrite each other."""
        with (self.root / f".{what}.lock").open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                who = HOLDERS.get(what, f"another `cloud-server {what}` runs here; stop it first")
                raise SettingsError(f"{self.root}: {who.format(root=self.root)}") from None
            yield

    def append_history(self, record: Mapping[str, object]) -> None:
        """Add one closed round; a line that a power cut has torn before stays by itself."""
        append_line(self.history, json.dumps(record, allow_nan=False).encode())

    def last_of_history(self) -> dict[str, object] | None:
        """Return the newest closed round, without reading the file from its start."""
        for line in newest_lines(self.history):
            with suppress(ValueError):  # torn
                return dict(json.loads(line.content))
        return None
