"""Show what the model is worth on robots that never trained: bars, confusions, pictures."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from cloud_server.report import charts
from cloud_server.report.markup import (
    Html,
    box_key,
    decimal,
    el,
    figure,
    percent,
    section,
    table,
    whole,
)
from cloud_server.report.results import Answer, Comparison, Results, add_up, mean

MODELS = "before training", "one robot alone", "the fleet"  # whose accuracy is compared
_PICTURES = 12  # about 60 kB each
_TYPES = {".jpg": "jpeg", ".jpeg": "jpeg", ".png": "png"}


def accuracy_section(results: Results) -> Html:
    """Compare the first, the lonely and the published models, and show who is mistaken for whom."""
    unseen, pairs = results.summary.unseen, results.predictions
    alone = {
        name: [scores[name] for scores in results.single_robot.values() if name in scores]
        for name in pairs
    }
    rows = {
        name: (pair.before.summary.accuracy, mean(alone[name]), pair.after.summary.accuracy)
        for name, pair in pairs.items()
    }
    rows["mean"] = unseen.accuracy_before, unseen.single_robot_mean, unseen.accuracy_after
    bars = {name: dict(zip(MODELS, values, strict=True)) for name, values in rows.items()}
    keys = [box_key(f"b{rank}", name) for rank, name in enumerate(MODELS)]
    legend = el("ul", *keys, class_="legend")
    chart = charts.grouped_bars("Accuracy of three kinds of model", bars, alone)
    return section(
        "Robots that never trained",
        "Every frame of the robots that took no part. A dot is a model that one training robot "
        "learned alone: same first model, same number of rounds.",
        el(
            "div",
            el("div", figure("Accuracy", legend, chart), _answered(results, rows), class_="stack"),
            el("div", _confusion(results, "after"), _confusion(results, "before"), class_="stack"),
            class_="grid",
        ),
    )


def _answered(results: Results, rows: Mapping[str, Sequence[float | None]]) -> Html:
    head = "Robot", "Frames", "Before", "Alone", "Fleet", "Macro F1", "ms a frame"
    body, skipped = [], []
    for name, values in rows.items():
        scores = results.predictions.get(name, Comparison()).after.summary
        shares = [percent(value, 1) for value in values]
        rest = decimal(scores.macro_f1, 3), decimal(scores.milliseconds_per_frame, 1)
        body.append((name, whole(scores.frames), *shares, *rest))
        skipped += [f"{name}: {count} x {reason}." for reason, count in scores.skipped.items()]
    note = [el("p", "Left out: ", " ".join(skipped), class_="note")] if skipped else []
    return figure("In numbers", table(head, body), *note)


def _confusion(results: Results, moment: str) -> Html:
    pairs = results.predictions.values()
    scores = [(pair.before if moment == "before" else pair.after).summary for pair in pairs]
    total = add_up((each.confusion for each in scores), results.labels)
    title = f"Truth and prediction, {moment} training"
    return figure(
        title,
        el("p", "Rows are the truth, columns what the model says.", class_="soft note"),
        charts.heatmap(title, total.labels, total.matrix) if total.labels else el("p", "-"),
    )


def frames_section(results: Results, frames_dir: Path) -> Html:
    """Show at most 12 pictures; frames_dir/<robot>/<..>_<stamp_ns>.jpg belongs to that answer."""
    found = list(frames_dir.iterdir()) if frames_dir.is_dir() else []
    directories = {server_dir.name: server_dir for server_dir in found if server_dir.is_dir()}
    names = [name for name in results.predictions if name in directories]
    quota = max(1, _PICTURES // max(1, len(names)))
    figures = []
    for name in names:
        answers = {a.stamp_ns: a for a in results.predictions[name].after.predictions}
        pictures = [
            (path, answers.get(_stamp(path)))
            for path in sorted(directories[name].iterdir())
            if path.suffix.lower() in _TYPES
        ]
        figures += [_picture(name, path, answer) for path, answer in _choose(pictures, quota)]
    return section(
        "What they see",
        "Frames of robots that never trained, spread evenly over each drive; where a robot was "
        "wrong at least once, one mistake is among them.",
        el("div", *figures[:_PICTURES], class_="thumbs") if figures else el("p", "-"),
    )


def _choose(
    pictures: Sequence[tuple[Path, Answer | None]], quota: int
) -> Sequence[tuple[Path, Answer | None]]:
    """Spread the choice evenly; if it holds no mistake, its last becomes the middle one of all."""
    count = min(quota, len(pictures))
    chosen = [pictures[index * len(pictures) // count] for index in range(count)]
    wrong = [p for p in pictures if p[1] and p[1].truth not in ("", p[1].label)]
    if wrong and not any(picture in wrong for picture in chosen):
        chosen[-1] = wrong[len(wrong) // 2]
    return sorted(chosen, key=lambda picture: picture[0])


def _picture(robot: str, path: Path, answer: Answer | None) -> Html:
    data = b64encode(path.read_bytes()).decode()
    source = f"data:image/{_TYPES[path.suffix.lower()]};base64,{data}"
    if answer is None:  # its text is in the picture
        return el("figure", el("img", src=source, alt=path.stem), el("figcaption", robot))
    style, mark = {"": ("open", "?"), answer.label: ("good", "✓")}.get(answer.truth, ("bad", "✗"))
    truth = answer.truth or "-"
    caption = el(
        "figcaption",
        el("b", f"{mark} {answer.label}"),
        f" {percent(answer.score)}",
        el("span", f"truth: {truth}, {robot}", class_="soft"),
    )
    alt = f"A frame of {robot}, called {answer.label}; truth: {truth}"
    return el("figure", el("img", src=source, alt=alt), caption, class_=f"matched {style}")


def _stamp(path: Path) -> int:
    digits = path.stem.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else -1
