"""Look at the file of another tool: its picture input, its outputs, and which layout that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fleet_model.errors import BundleError, SettingsError
from fleet_model.foreign import ForeignFile, Port, open_file
from fleet_model.types import Tensor, Tensors
from fleet_model.workloads.object_detector.imported.layouts import (
    LAYOUTS,
    Layout,
    layout_of,
)
from fleet_model.workloads.object_detector.imported.reading import (
    MAX_SIDE,
    Color,
    Fit,
    Reading,
    read_reading,
)
from fleet_model.workloads.object_detector.imported.stage import as_input

LARGEST_BYTES = 2_000_000_000
BYTES = "uint8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the operator says; what is None is seen in the file, or usual for the layout."""

    layout: str | None = None
    size: tuple[int, int] | None = None  # width and height of the input, pixels
    color: Color | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    fit: Fit | None = None
    shares: bool | None = None
    overlap: float | None = None
    outputs: Mapping[str, str] = field(default_factory=dict)  # role -> output


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a file is."""

    reading: Reading
    layout: Layout
    columns: int | None  # classes that there is room for; None: not seen
    told: Sequence[str]  # what was found, in words


def look_at(file: Path, wish: Wish, threads: int = 2) -> Seen:
    """Return what a file is; its classes are as many as there are columns, or one.

    Raises:
        BundleError: it cannot be run, or its tensors are those of no layout, or of several.
        SettingsError: a wish does not fit, or there is no such layout.
    """
    _require_readable(file)
    if wish.layout is not None:
        layout_of(wish.layout)  # before a large file is loaded
    opened = open_file(file, threads)
    image, size_input = _inputs(file.name, opened.inputs)
    port = opened.inputs[image]
    first, width, height = _size(file.name, image, port, wish.size)
    if -1 in port.shape or (size_input and -1 in opened.inputs[size_input].shape):
        shape = (1, 3, height, width) if first else (1, height, width, 3)
        shapes = {image: shape} | ({size_input: (1, 2)} if size_input else {})
        opened = open_file(file, threads, shapes)
    about: dict[str, Any] = {
        "layout": "", "width": width, "height": height, "image": image, "channels_first": first,
        "dtype": port.dtype, "scale": port.scale, "zero": port.zero, "size_input": size_input,
        "outputs": {}, "classes": (0,),
    }  # fmt: skip
    outputs = _first_outputs(opened, read_reading(about))
    name, roles = _layout(file.name, outputs, (width, height), wish)
    layout = layout_of(name)
    by_role = {role: outputs[output] for role, output in roles.items()}
    about |= {"layout": name, "outputs": roles, "shares": _shares(layout, file, wish)}
    about |= _given(layout, port, wish)
    columns = layout.columns(by_role)
    reading = read_reading({**about, "classes": tuple(range(columns or 1))})
    _require_read(file.name, layout, by_role, reading)
    return Seen(
        reading=reading,
        layout=layout,
        columns=columns,
        told=_words(file, port, reading, layout, by_role, columns, detected=wish.layout is None),
    )


def _require_readable(file: Path) -> None:
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    if size > LARGEST_BYTES:
        raise BundleError(f"{file.name}: {size / 1e6:.0f} MB, expected at most 2000 MB")


def _inputs(name: str, inputs: Mapping[str, Port]) -> tuple[str, str]:
    """Return the input that takes the picture, and the one that takes sizes; "" without one."""
    pictures = [n for n, port in inputs.items() if len(port.shape) == 4 and 3 in port.shape[1:]]
    sizes = [n for n, port in inputs.items() if port.dtype == "int64" and len(port.shape) == 2]
    if len(pictures) != 1 or len(inputs) != 1 + len(sizes) or len(sizes) > 1:
        told = ", ".join(f"{n} {_shape(port.shape)} {port.dtype}" for n, port in inputs.items())
        raise BundleError(
            f"{name}: takes {told or 'nothing'}, expected one picture (1, 3, height, width) or "
            "(1, height, width, 3), and at most one pair of sizes beside it"
        )
    return pictures[0], sizes[0] if sizes else ""


def _size(name: str, image: str, port: Port, wish: tuple[int, int] | None) -> tuple[bool, int, int]:
    """Return whether channels come first, width and height of the picture."""
    batch, *rest = port.shape
    first = rest[0] == 3 and rest[2] != 3
    height, width = rest[1:] if first else rest[:2]
    if batch not in (1, -1):
        raise BundleError(
            f"{name}: {image} takes {batch} pictures at once, expected 1; export it with batch 1"
        )
    if -1 in (height, width):
        if wish is None:
            raise BundleError(
                f"{name}: {image} has the shape {_shape(port.shape)}, and its size depends on the "
                "picture: choose one with --input-size, e.g. 640 or 640x384"
            )
        return first, *wish
    if wish not in (None, (width, height)):
        assert wish is not None
        raise SettingsError(
            f"--input-size {wish[0]}x{wish[1]}: {name} takes {width}x{height} only; leave it out"
        )
    if max(height, width) > MAX_SIDE:
        raise BundleError(f"{name}: {image} is {width}x{height}, at most {MAX_SIDE} is expected")
    return first, width, height


def _first_outputs(opened: ForeignFile, reading: Reading) -> dict[str, Tensor]:
    """Return what the file gives for a gray picture: then every shape is known."""
    gray = np.full((reading.height, reading.width, 3), reading.gray, np.float32)
    return opened(as_input(gray, reading))


def _layout(
    name: str, outputs: Tensors, size: tuple[int, int], wish: Wish
) -> tuple[str, dict[str, str]]:
    """Return the layout and which output is what."""
    told = ", ".join(f"{n} {_shape(t.shape)}" for n, t in outputs.items())
    if wish.layout is not None:
        chosen = _with_wish(wish, layout_of(wish.layout).roles(outputs, size), outputs)
        if chosen is None:
            raise BundleError(
                f"{name}: gives {told} for a picture of {size[0]}x{size[1]}, which is not "
                f"{wish.layout}: {layout_of(wish.layout).words}"
            )
        return wish.layout, chosen
    fits = {one: layout_of(one).roles(outputs, size) for one in LAYOUTS}
    found = {one: roles for one, roles in fits.items() if roles is not None}
    if len(found) > 1:
        found = {n: r for n, r in found.items() if layout_of(n).is_sure(r)} or found
    if len(found) != 1:
        if not found:
            raise BundleError(
                f"{name}: gives {told}, which is none of the layouts {', '.join(LAYOUTS)}; "
                "docs/detection.md says what each of them is"
            )
        kinds = "; ".join(f"--layout {one}: {layout_of(one).words}" for one in found)
        raise BundleError(f"{name}: gives {told}, which may be several; choose: {kinds}")
    layout, roles = next(iter(found.items()))
    return layout, _with_wish(wish, roles, outputs) or roles


def _with_wish(wish: Wish, roles: dict[str, str] | None, outputs: Tensors) -> dict[str, str] | None:
    """Return the roles with those that the operator has named; None where there are none."""
    if roles is None:
        return None
    for role, output in wish.outputs.items():
        for word, known, what in ((role, roles, "role"), (output, outputs, "output")):
            if word not in known:
                raise SettingsError(
                    f"--outputs {role}={output}: there is no {what} {word!r}; there are: "
                    f"{', '.join(known)}"
                )
    return {**roles, **wish.outputs}


def _shares(layout: Layout, file: Path, wish: Wish) -> bool:
    if wish.shares is not None:
        return wish.shares
    return layout.usual.shares or (layout.usual.tflite_shares and file.suffix == ".tflite")


def _given(layout: Layout, port: Port, wish: Wish) -> dict[str, Any]:
    """Return how the file is given a picture.

    An input of bytes takes the pixels themselves: that is what its scale and zero point say.
    """
    usual = layout.usual
    mean, std = usual.scaling
    if port.dtype == BYTES:
        zero, scale = (float(port.zero), port.scale) if port.scale else (0.0, 1.0)
        mean, std = (zero,) * 3, (1 / scale,) * 3
    return {
        "color": wish.color or usual.color,
        "mean": wish.mean or mean,
        "std": wish.std or std,
        "fit": wish.fit or usual.fit,
        "overlap": wish.overlap or usual.overlap,
    }


def _require_read(name: str, layout: Layout, by_role: Tensors, reading: Reading) -> None:
    try:
        layout.read({role: tensor[0] for role, tensor in by_role.items()}, reading)
    except (ValueError, IndexError) as error:
        raise BundleError(f"{name}: cannot be read as {reading.layout}: {error}") from None


def _words(
    file: Path,
    port: Port,
    reading: Reading,
    layout: Layout,
    by_role: Tensors,
    columns: int | None,
    *,
    detected: bool,
) -> list[str]:
    order = "channels first" if reading.channels_first else "channels last"
    given = ", ".join(
        f"{role} = {reading.outputs[role]} {_shape(tensor.shape)}"
        for role, tensor in by_role.items()
    )
    scaled = "as they are"
    if set(reading.mean) != {0.0} or set(reading.std) != {1.0}:
        scaled = f"(value - {_three(reading.mean)}) / {_three(reading.std)}"
    units = "shares of the input" if reading.shares else "pixels of the input"
    classes = "classes by number" if columns is None else f"{columns} classes"
    return [
        f"file: {file.name}, {file.stat().st_size / 1e6:.1f} MB",
        f"input: {reading.image} {_shape(port.shape)} {port.dtype}: {reading.width}x"
        f"{reading.height} pixels, {order}",
        f"layout: {reading.layout}{' (detected)' if detected else ''}: {layout.words}",
        f"outputs: {given}; boxes in {units}, {classes}",
        f"pictures: {reading.color.upper()} 0..255, {scaled}, {reading.fit}",
    ]


def _three(values: tuple[float, float, float]) -> str:
    return " ".join(f"{one:g}" for one in (values[:1] if len(set(values)) == 1 else values))


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join('?' if one == -1 else str(one) for one in shape)})"
