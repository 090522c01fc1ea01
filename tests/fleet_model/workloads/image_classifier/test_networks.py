import io
import pickle  # noqa: TID251  (to write what the reader must refuse)
import struct
from collections import OrderedDict
from importlib.machinery import ModuleSpec

import numpy as np
import pytest

from fleet_model.errors import SettingsError
from fleet_model.types import Frame
from fleet_model.workloads.image_classifier import ImageClassifier, imagenet_weights
from fleet_model.workloads.image_classifier.classifier import BACKBONES
from fleet_model.workloads.image_classifier.imagenet_weights import read_lite0, read_state_dict
from fleet_model.workloads.image_classifier.keras_model import ImageClassifierModel
from fleet_model.workloads.image_classifier.networks import NETWORKS

LABELS = ["circle", "square", "star", "triangle"]
IMAGENET = {"coffee": 967, "chelsea": 285, "rocket": 657}  # espresso, Egyptian cat, missile


def model_of(*arguments, **named):
    return ImageClassifierModel(ImageClassifier(LABELS, *arguments, **named))


def test_every_backbone_has_a_network():
    assert NETWORKS.keys() == BACKBONES.keys()


@pytest.fixture(scope="module")
def mobilenet():
    definition = model_of("mobilenet-v2-035", image_size=64)
    return definition, definition.build()


@pytest.mark.tensorflow
@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_variable_paths_are_unique_and_the_same_at_every_call(backbone):
    definition = model_of(backbone, image_size=32)

    first, second = (definition.build(initial_weights=False) for _ in range(2))

    paths = [v.path for v in first.variables]
    assert len(set(paths)) == len(paths)
    assert paths == [v.path for v in second.variables]
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    assert first.output.shape == (None, 4)


@pytest.mark.tensorflow
@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_scopes_grow_and_never_contain_batch_normalization(backbone):
    definition = model_of(backbone, image_size=32)
    model = definition.build(initial_weights=False)

    head, block, everything = (
        definition.trainable(model, s) for s in ("head", "last-block", "all")
    )

    assert head == ["head/kernel", "head/bias"]
    assert len(block) == 6
    assert set(head) < set(block) < set(everything)
    frozen = {v.path.rpartition("/")[2] for v in model.variables if v.path not in everything}
    assert frozen == {"gamma", "beta", "moving_mean", "moving_variance"}


@pytest.mark.tensorflow
def test_an_unknown_scope_names_the_known_ones(mobilenet):
    definition, model = mobilenet

    with pytest.raises(SettingsError, match="choose head, last-block, all"):
        definition.trainable(model, "tail")


@pytest.mark.tensorflow
def test_initial_weights_are_the_same_at_every_call(mobilenet):
    definition, model = mobilenet

    twin = definition.build()

    for ours, theirs in zip(model.weights, twin.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)


@pytest.mark.tensorflow
def test_random_features_tell_pictures_apart(mobilenet):
    _, model = mobilenet
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 64, 64, 3)).astype(np.float32)
    images[2:] *= np.linspace(0, 1, 64, dtype=np.float32)[:, None]

    logits = model(images, training=False).numpy()

    assert np.isfinite(logits).all()
    assert np.linalg.norm(logits[0] - logits[2]) > 0.01


@pytest.mark.tensorflow
def test_a_padded_row_changes_no_loss():
    definition = model_of()
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(3, 4)).astype(np.float32)
    targets, weights = np.array([0, 3, 1], np.int32), np.array([1.0, 0.5, 2.0], np.float32)

    plain = float(definition.loss({"class": targets}, {"logits": outputs}, weights))
    padded = float(
        definition.loss(
            {"class": np.append(targets, np.int32(0))},
            {"logits": np.vstack([outputs, np.zeros((1, 4), np.float32)])},
            np.append(weights, np.float32(0)),
        )
    )

    rows = [-np.log(np.exp(o[t]) / np.exp(o).sum()) for o, t in zip(outputs, targets, strict=True)]
    assert plain == pytest.approx(np.average(rows, weights=weights), rel=1e-5)
    assert padded == pytest.approx(plain, rel=1e-6)


@pytest.mark.tensorflow
def test_the_loss_of_one_row_is_the_metric():
    outputs = {"logits": np.array([[1.0, -2.0, 0.5, 3.0]], np.float32)}
    targets = {"class": np.array([2], np.int32)}

    loss = float(model_of().loss(targets, outputs, np.ones(1, np.float32)))

    assert loss == pytest.approx(
        ImageClassifier(LABELS).measure(outputs, targets)["loss"], rel=1e-5
    )


@pytest.mark.tensorflow
@pytest.mark.slow
def test_lite0_knows_photographs_that_it_was_not_trained_on():
    import keras

    skimage_data = pytest.importorskip("skimage.data")
    workload = ImageClassifier(LABELS, "efficientnet-lite0", image_size=224)
    model = ImageClassifierModel(workload).build()
    features = keras.Model(model.input, model.get_layer("head").input)
    state = read_lite0()  # it also holds the classifier of the 1000 ImageNet classes

    for name, expected in IMAGENET.items():
        image = getattr(skimage_data, name)()
        frame = Frame(
            source="", topic=name, stamp_ns=0, data=b"", format="rgb8", decode=lambda i=image: i
        )
        row = features(workload.encode(frame).inputs["image"][None], training=False).numpy()[0]
        logits = state["_fc.weight"] @ row + state["_fc.bias"]
        assert int(logits.argmax()) == expected, name


def test_without_the_weights_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(imagenet_weights, "find_spec", lambda name: None)

    with pytest.raises(SettingsError, match=r"install fleetlearn\[server\]"):
        read_lite0()


def test_another_file_in_the_weights_package_is_not_opened(monkeypatch, tmp_path):
    file = tmp_path / imagenet_weights.LITE0_FILE
    file.parent.mkdir()
    file.write_bytes(pickle.dumps(print))
    spec = ModuleSpec("x", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(imagenet_weights, "find_spec", lambda name: spec)

    with pytest.raises(SettingsError, match=r"is not the file of release 0\.1\.0"):
        read_lite0()


class _Storage:
    """Pickles as PyTorch's storages and tensors do."""

    def __init__(self, shape, strides, offset=0):
        self.arguments = ("storage-0", offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return _rebuild_tensor_v2, self.arguments


def _rebuild_tensor_v2(*arguments):
    raise AssertionError("the reader has its own")


_rebuild_tensor_v2.__module__ = "torch._utils"


def state_dict_bytes(tensors, values):
    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            if value == "storage-0":
                return ("storage", _FloatStorage, "0", "cpu", len(values), None)
            return None

        def save_global(self, obj, name=None):
            module = {"FloatStorage": "torch", "_rebuild_tensor_v2": "torch._utils"}
            if getattr(obj, "__name__", "") in module:
                self.write(f"c{module[obj.__name__]}\n{obj.__name__}\n".encode())
            else:
                super().save_global(obj, name)

    Pickler.dispatch = dict(pickle._Pickler.dispatch)
    Pickler.dispatch[type(_rebuild_tensor_v2)] = Pickler.save_global
    Pickler.dispatch[type] = Pickler.save_global
    stream = io.BytesIO()
    for value in (0x1950A86A20F9469CFC6C, 1001, {}, tensors, ["0"]):
        Pickler(stream, 2).dump(value)
    stream.write(struct.pack("<q", len(values)) + np.asarray(values, "<f4").tobytes())
    stream.seek(0)
    return stream


_FloatStorage = type("FloatStorage", (), {})


def test_a_tensor_is_read_with_its_own_strides():
    stream = state_dict_bytes({"a": _Storage((2, 3), (1, 2))}, range(6))

    assert read_state_dict(stream)["a"].tolist() == [[0, 2, 4], [1, 3, 5]]


def test_a_tensor_that_reaches_outside_its_storage_is_refused():
    stream = state_dict_bytes({"a": _Storage((2, 3), (3, 1), offset=1)}, range(6))

    with pytest.raises(SettingsError, match="outside its storage"):
        read_state_dict(stream)


def test_a_pickle_that_asks_for_more_than_tensors_is_refused():
    stream = io.BytesIO(b"cbuiltins\neval\n(S'1/0'\ntR.")

    with pytest.raises(SettingsError, match=r"asks for builtins\.eval"):
        read_state_dict(stream)
