"""The word that a person gives for labels: a topic, a file, or nothing where there are topics."""

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path

from edge_agent.data.frames.bag import BagFrames
from edge_agent.data.frames.damage import WRONG_LABEL_TOPIC
from edge_agent.data.frames.source import find_bags, is_live, nothing_to_read
from edge_agent.data.label_formats.label_topic import choose_label_topic, label_topics
from edge_agent.data.labels import LabelSettings, is_bag_at, is_damaged
from fleet_model.errors import FrameError, SettingsError


def require_label_source(paths: Sequence[Path], label_topic: str) -> None:
    """Refuse a word that a person gave for labels and that names nothing: a file name mistyped.

    An agent's own setting may name the topic of bags that are not there yet, so only commands ask.

    Raises:
        SettingsError: no path is a bag, which has topics, and there is no file of that name.
        FrameError: one of the paths is not there, or holds bags and is none.
    """
    require_label_file(label_topic)
    if not label_topic or Path(label_topic).exists():
        return
    if not any(is_live(path) or is_bag_at(path) for path in paths):
        if around := next((path for path in paths if path.is_dir() and find_bags(path)), None):
            raise nothing_to_read(around)
        raise SettingsError(
            f"labels {label_topic}: no such file or folder, and only a bag has label topics; name "
            "a CSV file or a data set with stamps"
        )


def require_label_topic(paths: Sequence[Path], settings: LabelSettings) -> None:
    """Refuse a label topic that no bag has, before anything of the bags is read.

    A bag without it beside bags with it is left out; a recorder may have been killed before the
    topic's first message.

    Raises:
        FrameError: what is wrong with the first bag that has other label topics, else with the
            first one.
    """
    wrong = list[tuple[bool, FrameError]]()
    if not settings.label_topic or Path(settings.label_topic).exists():
        return
    for path in paths:
        if is_live(path) or not is_bag_at(path):
            continue
        bag = BagFrames(path, settings.topic)
        try:
            choose_label_topic(bag, settings.label_topic)
        except FrameError as error:
            if error.reason == WRONG_LABEL_TOPIC and not is_damaged(bag):
                wrong.append((bool(label_topics(bag)), error))
        else:
            return
    if wrong:
        raise max(wrong, key=itemgetter(0))[1]


def require_label_file(label_topic: str) -> None:
    """Raise SettingsError for a CSV file that is not there: no topic of ROS is named like one."""
    if label_topic.lower().endswith(".csv") and not Path(label_topic).exists():
        raise SettingsError(f"labels {label_topic}: no such file; name one that is there")


def topics_not_named(paths: Sequence[Path]) -> list[str]:
    """Return the topics of bags whose messages may be labels."""
    bags = [BagFrames(path) for path in paths if not is_live(path) and is_bag_at(path)]
    return sorted({topic.name for bag in bags for topic in label_topics(bag)})
