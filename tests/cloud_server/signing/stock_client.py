"""The client of python-tuf as it is, reading a store's files: what is signed is TUF."""

from pathlib import Path

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater


class FileFetcher(FetcherInterface):
    """Reads what would be asked for, and remembers it."""

    def __init__(self):
        self.asked, self.bytes = [], 0

    def _fetch(self, url):
        self.asked.append(Path(url).name)
        try:
            content = Path(url).read_bytes()
        except FileNotFoundError:
            raise DownloadHTTPError("not there", 404) from None
        self.bytes += len(content)
        yield content


class Client:
    """A robot's worth of trusted metadata, from the root that the store has first."""

    def __init__(self, store, folder):
        self.store, self.folder = store, folder
        (folder / "metadata").mkdir(parents=True)
        self.first = (store / "metadata" / "1.root.json").read_bytes()

    def look(self, channel="stable"):
        """Return the manifest that the channel offers, or None."""
        self.fetcher = FileFetcher()
        updater = Updater(
            str(self.folder / "metadata"),
            f"{self.store}/metadata/",
            str(self.folder / "targets"),
            f"{self.store}/targets/",
            fetcher=self.fetcher,
            bootstrap=self.first,
        )
        updater.refresh()
        info = updater.get_targetinfo(f"{channel}/manifest.json")
        return None if info is None else Path(updater.download_target(info)).read_bytes()
