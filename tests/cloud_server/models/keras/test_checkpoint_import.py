import io
import zipfile

import numpy as np
import pytest

from cloud_server.models.keras.checkpoint_import import import_checkpoint
from fleet_model.errors import CheckpointError

pytestmark = pytest.mark.tensorflow


def small_model(prefix="", classes=3, extra=None):
    """Return a model with BatchNormalization, so that trained and frozen variables interleave."""
    import keras
    from keras import layers

    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name=f"{prefix}conv")(image)
    x = layers.BatchNormalization(name=f"{prefix}norm")(x)
    x = layers.GlobalAveragePooling2D()(extra(x) if extra else x)
    return keras.Model(image, layers.Dense(classes, name=f"{prefix}head")(x))


def randomize(model, seed=1):
    rng = np.random.default_rng(seed)
    model.set_weights([rng.random(w.shape, np.float32) for w in model.get_weights()])
    return model


def npz(file, arrays):
    np.savez(file, *arrays)
    return file


def raw_npz(file, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def npy_bytes(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def assert_same(model, arrays):
    for variable, array in zip(model.weights, arrays, strict=True):
        np.testing.assert_array_equal(variable.numpy(), array, err_msg=variable.path)


def assert_refused(file, message):
    """The error matches, names no path, and the model is as it was."""
    model = randomize(small_model(), seed=9)
    before = model.get_weights()
    with pytest.raises(CheckpointError, match=message) as error:
        import_checkpoint(file, model)
    assert str(error.value).startswith(f"{file.name}: ")
    assert str(file.parent) not in str(error.value)
    assert_same(model, before)


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "their_"])
def test_a_keras_file_is_matched_by_path_or_else_in_model_order(tmp_path, prefix):
    theirs = randomize(small_model(prefix))
    theirs.save(tmp_path / "mine.keras")
    ours = small_model()

    import_checkpoint(tmp_path / "mine.keras", ours)

    assert_same(ours, theirs.get_weights())


def test_a_keras_file_that_was_compiled_and_trained_is_read(tmp_path):
    theirs = small_model()
    theirs.compile("adam", "mse")
    theirs.fit(np.ones((4, 8, 8, 3)), np.ones((4, 3)), verbose=0)
    theirs.save(tmp_path / "trained.keras")
    ours = small_model()

    import_checkpoint(tmp_path / "trained.keras", ours)

    assert_same(ours, theirs.get_weights())


def test_variables_that_are_no_weights_are_passed_over(tmp_path):
    import keras

    theirs = randomize(small_model(extra=keras.layers.Dropout(0.5)))  # has a random state
    theirs.save(tmp_path / "dropout.keras")
    ours = small_model()

    import_checkpoint(tmp_path / "dropout.keras", ours)

    assert_same(ours, theirs.get_weights())


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_first_generations_npz_is_matched_in_order(tmp_path, dtype):
    arrays = [w.astype(dtype) for w in randomize(small_model()).get_weights()]
    ours = small_model()

    import_checkpoint(npz(tmp_path / "round-7-weights.npz", arrays), ours)

    assert_same(ours, [a.astype(np.float32) for a in arrays])


def test_compressed_and_fortran_ordered_arrays_are_read(tmp_path):
    arrays = [np.asfortranarray(w) for w in randomize(small_model()).get_weights()]
    np.savez_compressed(tmp_path / "packed.npz", *arrays)
    ours = small_model()

    import_checkpoint(tmp_path / "packed.npz", ours)

    assert_same(ours, arrays)


def test_more_than_ten_arrays_keep_their_order(tmp_path):
    import keras
    from keras import layers

    def deep():
        x = image = keras.Input((2,))
        for number in range(7):
            x = layers.Dense(2, name=f"d{number}")(x)
        return keras.Model(image, x)

    arrays = randomize(deep()).get_weights()
    ours = deep()

    import_checkpoint(npz(tmp_path / "deep.npz", arrays), ours)

    assert_same(ours, arrays)


def test_a_keras_file_with_other_classes_names_the_tensor(tmp_path):
    small_model(classes=5).save(tmp_path / "five.keras")

    assert_refused(
        tmp_path / "five.keras",
        r"head/kernel has shape \(4, 5\), head/kernel of this workload has \(4, 3\); was it "
        r"trained with .* the same number of labels\?",
    )


def test_an_npz_with_other_classes_names_the_tensor(tmp_path):
    file = npz(tmp_path / "five.npz", small_model(classes=5).get_weights())

    assert_refused(file, r"arr_6 has shape \(4, 5\), head/kernel of this workload has \(4, 3\)")


def test_too_few_and_too_many_tensors_are_named(tmp_path):
    arrays = small_model().get_weights()

    assert_refused(npz(tmp_path / "few.npz", arrays[:-1]), "has 7 tensors, .* head/bias is missing")
    assert_refused(npz(tmp_path / "many.npz", [*arrays, arrays[0]]), "arr_8 is too many")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    arrays = small_model().get_weights()
    arrays[2][1] = np.nan

    assert_refused(npz(tmp_path / "nan.npz", arrays), "arr_2 holds NaN or infinity")


def test_code_in_a_keras_file_is_not_run(tmp_path):
    import keras

    marker = tmp_path / "it_ran"
    layer = keras.layers.Lambda(
        eval(f"lambda x: (open({str(marker)!r}, 'w'), x)[1]"), output_shape=lambda shape: shape
    )
    small_model(extra=layer).save(tmp_path / "evil.keras")
    marker.unlink(missing_ok=True)  # building it ran it

    assert_refused(tmp_path / "evil.keras", "code inside a file, such as a Lambda layer, is never")
    assert not marker.exists()


def test_pickled_objects_in_an_npz_are_not_loaded(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "it_ran"), "w"))

    objects = np.array([Evil()], dtype=object)
    content = npy_bytes(objects, allow_pickle=True)
    (tmp_path / "it_ran").unlink(missing_ok=True)

    assert_refused(
        raw_npz(tmp_path / "evil.npz", {"arr_0.npy": content}), "arr_0 holds Python objects"
    )
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"shape": (2_000_000, 2_000_000)}, r"arr_0 has shape \(2000000, 2000000\)"),
        ({"shape": (3, 3, 3, -4)}, r"arr_0 has shape \(3, 3, 3, -4\)"),
        ({"descr": "|O"}, "arr_0 holds Python objects, as Flower's Parameters"),
        ({"descr": "<i8"}, "arr_0 holds whole numbers, as the state of a PyTorch"),
        ({"descr": [("a", "<f4")]}, "arr_0 holds "),
    ],
)
def test_a_header_is_checked_before_anything_is_reserved(tmp_path, header, message):
    first, *others = small_model().get_weights()
    stream = io.BytesIO()
    honest = {"descr": "<f4", "fortran_order": False, "shape": first.shape}
    np.lib.format.write_array_header_1_0(stream, honest | header)
    members = {f"arr_{i}.npy": npy_bytes(w) for i, w in enumerate(others, start=1)}

    file = raw_npz(tmp_path / "odd.npz", {"arr_0.npy": stream.getvalue() + bytes(64), **members})

    assert_refused(file, message)


@pytest.mark.parametrize(
    "content", [b"", b"x", b"\x93NUMPY\x01\x00\xff\xff{", b"\x93NUMPY\x09\x00"]
)
def test_a_broken_header_is_refused(tmp_path, content):
    assert_refused(
        raw_npz(tmp_path / "odd.npz", {"arr_0.npy": content}), "not a readable .npz file"
    )


@pytest.mark.parametrize("suffix", [".npz", ".keras"])
def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, suffix):
    bomb = raw_npz(tmp_path / f"bomb{suffix}", {"arr_0.npy": bytes(40_000_000)})
    assert bomb.stat().st_size < 100_000

    assert_refused(bomb, "unpacks to 40000000 bytes, expected at most")


def test_an_array_that_is_cut_short_is_refused(tmp_path):
    arrays = {f"arr_{i}.npy": npy_bytes(w) for i, w in enumerate(small_model().get_weights())}
    arrays["arr_3.npy"] = arrays["arr_3.npy"][:-4]

    assert_refused(raw_npz(tmp_path / "short.npz", arrays), "arr_3 is cut short")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"not a zip", r"not a \.npz file"),
        ("a.keras", b"not a zip", r"not a \.keras file"),
        ("a.npz", b"", r"not a \.npz file"),
        ("a.h5", b"x", r"in the old HDF5 format; load it with the TensorFlow that wrote it"),
        ("a.keras", b"\x89HDF\r\n\x1a\n", r"in the old HDF5 format"),
        ("a.safetensors", b"x", r"not a readable safetensors file"),
    ],
)
def test_another_kind_of_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)

    assert_refused(tmp_path / name, message)


def test_named_arrays_are_refused(tmp_path):
    np.savez(tmp_path / "named.npz", kernel=np.zeros(3, np.float32))

    assert_refused(tmp_path / "named.npz", r"holds kernel\.npy \.\.\., expected arr_0")


def test_a_missing_file_is_refused(tmp_path):
    assert_refused(tmp_path / "gone.npz", "no such file")


def test_a_zip_without_a_model_is_refused(tmp_path):
    file = raw_npz(tmp_path / "other.keras", {"hello.txt": b"hello"})

    assert_refused(file, "Keras does not load it")
