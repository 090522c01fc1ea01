"""The values that flow between robot and cloud, in the order they appear."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Tensor: TypeAlias = NDArray[Any]
    RgbImage: TypeAlias = NDArray[np.uint8]  # (height, width, 3)
else:  # NumPy takes 0.1 s to import; commands that only read records do without it
    Tensor = RgbImage = Any
Tensors: TypeAlias = Mapping[str, Tensor]  # by name, of one example or with a batch axis
Weights: TypeAlias = Mapping[str, Tensor]  # variable path, e.g. "head/kernel" -> tensor
Metrics: TypeAlias = Mapping[str, float]
NS_PER_S = 1_000_000_000  # stamps are whole nanoseconds
# Kinds of requests and of their replies.
TRAIN, EVALUATE, SUMS, PROFILE = "train", "evaluate", "sums", "profile"
FLOAT32 = "float32"  # the codec of tensors that travel as they are


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Frame:
    """One camera picture as a bag, topic or folder delivered it: the message's own bytes.

    Nothing is decoded until `decode()` is called, so that an unchanged JPEG can pass through and a
    frame that is dropped costs nothing.
    """

    source: str  # bag or folder name, relative: shown in tables, never sent
    topic: str  # topic name, or the file name for folders
    stamp_ns: int  # header stamp, nanoseconds since the Unix epoch; bag time where it is zero
    data: bytes | memoryview = field(repr=False)  # payload of the message, e.g. a whole JPEG file
    format: str  # "jpeg", "png", ... or a raw encoding such as "bgr8"
    decode: Callable[[], RgbImage] = field(repr=False)  # for people and models; raises FrameError
    # As the sensor gave it: (height, width) or (height, width, channels), uint8, uint16 or what
    # else it sends (int32, float32, ...), color in the order R, G, B, A. None: what `decode`
    # returns is all there is.
    pixels: Callable[[], Tensor] | None = field(default=None, repr=False)
    # As `decode`, or scaled down where that is faster: no side is shorter than its argument.
    reduced: Callable[[int], RgbImage] | None = field(default=None, repr=False)
    width: int = 0  # by the header, without decoding; 0 is unknown
    height: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One thing that a person marked in a picture: pixels from the upper left corner, float64."""

    label: str
    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabel:
    """How a model's own answer may stand in for a truth that nobody has told."""

    weight: float  # beside a truth that somebody has told, over 0 to 1
    precision: float  # of answers as sure as this one, on the robot's held-out examples: 0.5 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """What a language model is asked, and what it should answer: `Example.raw` of such models."""

    # Who said what before the answer, in order: (role, content), roles as a chat template knows
    # them: "system", "user", "assistant". Empty: `prompt` is a text that the answer goes on with.
    turns: tuple[tuple[str, str], ...] = ()
    prompt: str = ""
    answer: str = ""  # "": not known
    # A picture that it is about, for models that see: the path of its file, or an address, which is
    # never fetched. "": none.
    image: str = ""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Example:
    """One input of a workload with what its source knows about it. It never leaves the robot.

    A source leaves out no example for lack of a label or of boxes, unless the workload takes one
    label per example: the workload decides what it can learn from.
    """

    # What the workload reads: a Frame for image workloads, anything for a source of your own. The
    # payload of a Frame is read when it is first asked for, so an example whose features are cached
    # costs no reading.
    raw: Any
    key: str  # unique on this robot and stable between rounds: names cached features
    held_out: bool = False  # True: measured with, never trained on
    label: str | None = None  # of the whole input; with boxes, the largest one's; None: not known
    boxes: tuple[Box, ...] = ()  # for detection
    seen: bool = True  # somebody has said which things are there: without boxes none, a negative
    targets: Mapping[str, Any] = field(default_factory=dict)  # by name: whatever else is known
    pseudo: PseudoLabel | None = None  # the truth is not known, and a trainer may ask its model
    # Over 0 to 1: a teacher, another model, has told the truth, and it weighs so much beside one
    # that a person has told. 0: a person has. Such an example is never held out.
    taught: float = 0.0


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Encoded:
    """A raw input as the model takes it."""

    inputs: Tensors  # names, shapes, dtypes of Task.inputs; no batch axis
    context: Any = None  # what Workload.decode needs, such as the picture's size and the cut


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Target:
    """The truth of one example as the loss takes it."""

    tensors: Tensors  # names, shapes, dtypes of Task.targets; no batch axis
    weight: float = 1.0  # what it counts in the loss and in the average: frames, boxes or tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What the server asks of every robot in one round."""

    epochs: int = 5  # passes over the local training examples
    batch_size: int = 32  # rows of one step; the last batch is padded with weight 0
    learning_rate: float = 0.01
    momentum: float = 0.9  # heavy ball, fresh in every round
    proximal_mu: float = 0.0  # FedProx pull to the global weights (arXiv:1812.06127); 0 = off
    clip_norm: float = 0.0  # gradients longer than this (L2) are scaled down; 0 = off
    seed: int = 0  # shuffling; the robot mixes in its own name
    logit_adjustment: float = 0.0  # tau of arXiv:2007.07314, by own class shares; 0 = off
    # Above 0: Adam (arXiv:1412.6980) with this beta2, and `momentum` as beta1; 0 = heavy ball
    adaptive: float = 0.0
    private_clip: float = 0.0  # above 0: updates are cut to it, and get noise, before they are sent
    private_noise: float = 0.0  # deviation of the noise, in units of private_clip
    control_variates: int = 0  # 1: the request has SCAFFOLD's groups (protocol/control.py)
    # Of requests for sums: leading directions of the scatter within classes; 0 = all of it, exactly
    sums_directions: int = 16


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Checkpoint:
    """What a round starts from. The server's file of it is enough to resume."""

    version: int  # closed rounds so far; also the version of a bundle exported from it
    weights: Weights  # the trained tensors, float32; frozen ones stay in the trainer's files
    server_state: Weights = field(default_factory=dict)  # the aggregator's own tensors, by name
    seed: int = 0  # state of the server's random choices


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Update:
    """What one robot sends back: the difference to the checkpoint, or what else was asked.

    Never frames. `kind` is that of the request; rounds/reply_kinds.py says what each kind holds.
    """

    kind: str = TRAIN
    robot: str  # name from the server's register; "" until the server has looked it up
    base_version: int  # Checkpoint.version that it started from
    weights: Weights  # trained minus received, float32, same names and shapes
    num_examples: int  # training examples used
    num_steps: int  # optimizer steps taken
    metrics: Metrics = field(default_factory=dict)
    groups: Mapping[str, Weights] = field(default_factory=dict)  # further float32 tensors, by group
    label_counts: tuple[int, ...] = ()  # examples with each label of the fleet; (): not told
    codec: str = FLOAT32  # else `weights` holds bytes that compression/coding.py reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One thing the engine found: a class of the whole input, one thing in it, or a text."""

    label: str = ""  # one of Task.classes; "" for a text
    score: float = 1.0  # 0..1
    box: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1 in the input's own pixels
    text: str = ""
