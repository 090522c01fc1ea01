"""What the files of a model of LLaVA's layout say of pictures."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_model.errors import BundleError
from fleet_model.torch.folder import CONFIG

PREPROCESSOR = "preprocessor_config.json"
PROCESSOR = "processor_config.json"  # where newer versions of transformers keep it
# What transformers takes where a file says nothing: CLIP's of 336 pixels.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3  # as Pillow counts


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a picture becomes what the tower takes."""

    size: int  # pixels of each side, in the end
    shortest: int  # the shorter side is scaled to it; 0: both are, to `size`
    factor: float  # of colors
    mean: tuple[float, ...]  # of red, green and blue
    deviation: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a model makes of a picture."""

    size: int  # pixels of each side
    tokens: int  # that stand for one picture
    token: int  # the number that marks them


def layout_of(directory: Path) -> Layout:
    """Return what config.json says; raises BundleError if it is no model of this layout."""
    about = _json(directory / CONFIG)
    if about.get("model_type") != "llava":
        raise BundleError(
            f"{CONFIG}: is of a {str(about.get('model_type'))[:40]!r}, expected a model of LLaVA's "
            'layout as transformers has it: model_type "llava", with vision_config and text_config'
        )
    vision = about.get("vision_config") or {}
    try:
        size, patch = int(vision.get("image_size", 336)), int(vision.get("patch_size", 14))
        token = int(about.get("image_token_index", about.get("image_token_id", 32000)))
        tokens = (size // patch) ** 2
    except (ValueError, TypeError, AttributeError, ZeroDivisionError):
        raise BundleError(f"{CONFIG}: its vision_config says no size of pictures") from None
    has_class = vision.get("model_type", "clip_vision_model") == "clip_vision_model"
    if about.get("vision_feature_select_strategy", "default") == "full":
        tokens += has_class
    elif not has_class:
        tokens -= 1
    return Layout(size, tokens, token)


def preparation_of(directory: Path, size: int) -> Preparation:
    """Return how pictures are prepared.

    Args:
        directory: holds PREPROCESSOR or PROCESSOR.
        size: that the tower takes.

    Raises:
        BundleError: neither is there, or it says something that is not done here.
    """
    about = _prepared(directory)
    sizes, cut = about.get("size", {}), about.get("crop_size", {})
    sizes = {"shortest_edge": sizes} if isinstance(sizes, int) else sizes
    side = cut if isinstance(cut, int) else cut.get("height", size)
    shortest = sizes.get("shortest_edge", 0 if "height" in sizes else size)
    if not about.get("do_center_crop", True):
        side, shortest = sizes.get("height", shortest), 0
    wanted = {"do_resize": True, "do_rescale": True, "do_normalize": True, "resample": _BICUBIC}
    if other := [name for name, value in wanted.items() if about.get(name, value) != value]:
        raise BundleError(
            f"{PREPROCESSOR}: {other[0]} is {about[other[0]]!r}, expected {wanted[other[0]]}"
        )
    mean, deviation = about.get("image_mean", _MEAN), about.get("image_std", _DEVIATION)
    try:
        found = Preparation(
            int(side),
            int(shortest),
            float(about.get("rescale_factor", 1 / 255)),
            tuple(map(float, mean)),
            tuple(map(float, deviation)),
        )
    except (ValueError, TypeError):
        raise BundleError(f"{PREPROCESSOR}: its numbers are none") from None
    if found.size != size:
        raise BundleError(
            f"{PREPROCESSOR}: makes pictures of {found.size} pixels, the tower takes {size}"
        )
    if 0 < found.shortest < size:
        raise BundleError(
            f"{PREPROCESSOR}: scales the shortest side to {found.shortest} pixels, the tower takes "
            f"{size}"
        )
    if len(found.mean) != 3 or len(found.deviation) != 3 or not all(found.deviation):
        raise BundleError(f"{PREPROCESSOR}: image_mean and image_std have three numbers")
    return found


def write_preparation(source: Path, into: Path) -> None:
    """Write PREPROCESSOR with what is needed of it alone; raises BundleError."""
    kept = ("size", "crop_size", "image_mean", "image_std", "rescale_factor", "resample")
    about = _prepared(source)
    told = {name: about[name] for name in (*kept, "do_center_crop") if about.get(name) is not None}
    (into / PREPROCESSOR).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _prepared(directory: Path) -> dict[str, Any]:
    if (directory / PREPROCESSOR).is_file():
        return _json(directory / PREPROCESSOR)
    about = _json(directory / PROCESSOR, PREPROCESSOR).get("image_processor")
    if not isinstance(about, dict):
        raise BundleError(f"{PROCESSOR}: has no image_processor; save the processor again")
    return about


def _json(file: Path, shown: str = "") -> dict[str, Any]:
    name = shown or file.name
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(
            f"{name}: missing; save it beside the model: processor.save_pretrained(FOLDER)"
        ) from None
    except (OSError, ValueError, RecursionError):
        raise BundleError(f"{name}: is no JSON; save it again") from None
    if not isinstance(about, dict):
        raise BundleError(f"{name}: is no JSON object; save it again")
    return about
