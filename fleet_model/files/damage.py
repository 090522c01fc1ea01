"""What of files cannot be read: kinds, counts, where each kind begins."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Damage:
    """One kind of loss."""

    kind: str  # "cut file", "chunk checksum", "short data": the same words for every occurrence
    count: int  # how often; messages where they can be counted, else places
    begins: str  # the first place, e.g. "run_0.mcap at byte 1234567"; never an absolute path


class DamageLog:
    """Counts losses by kind, in the order of their first occurrence."""

    def __init__(self) -> None:
        self._kinds: dict[str, Damage] = {}

    def add(self, kind: str, begins: str, count: int = 1) -> None:
        """Count a loss; of one kind only the first place is kept."""
        first = self._kinds.get(kind, Damage(kind, 0, begins))
        self._kinds[kind] = Damage(kind, first.count + count, first.begins)

    def all(self) -> tuple[Damage, ...]:
        """Return one Damage a kind."""
        return tuple(self._kinds.values())

    def __bool__(self) -> bool:
        return bool(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def __contains__(self, kind: object) -> bool:
        return kind in self._kinds

    def sentence(self) -> str:
        """Return everything in one line, for errors."""
        return "; ".join(f"{d.count} x {d.kind}, first {d.begins}" for d in self._kinds.values())
