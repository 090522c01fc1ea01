"""Small detectors as other tools write them: they find blocks of 32 pixels on a grid of 32.

Each is a real graph: it averages cells of a picture of 128 pixels, and says blue or red. Their
boxes are exact: a mean average precision of 1 can be expected. `shift` moves them, by cells.
"""

import json

import cv2
import numpy as np

from fleet_model.bundle import TRAINER

SIDE, CELL = 128, 32
CELLS = SIDE // CELL
LABELS = ("blue", "red")
COLORS = {"blue": (20, 40, 230), "red": (220, 30, 30)}  # R, G, B
STEEP, LEAST = 0.2, 20.0  # the logit of a color is STEEP * (its channel - the other) - LEAST


def as_of_boxes(server_dir):
    """Return a server directory as if it learned boxes: of its trainer only the workload counts."""
    file = server_dir.model / TRAINER
    fields = json.loads(file.read_bytes())
    config = {"labels": list(LABELS), "image_size": SIDE}
    fields["workload"] = {"name": "object-detector", "config": config}
    file.write_text(json.dumps(fields))
    return server_dir


def picture(*blocks, seed=0):
    """Return noise with blocks: (128, 128, 3) RGB; a block is (label, column, row)."""
    image = np.random.default_rng(seed).integers(60, 140, (SIDE, SIDE, 3)).astype(np.uint8)
    for label, column, row in blocks:
        image[CELL * row : CELL * (row + 1), CELL * column : CELL * (column + 1)] = COLORS[label]
    return image


def corners(column, row):
    """Return the box of a block: x0, y0, x1, y1."""
    return tuple(float(CELL * one) for one in (column, row, column + 1, row + 1))


def yolo_set(folder, frames, seed=0):
    """Write a YOLO data set of such pictures, with none, one or two blocks each."""
    rng = np.random.default_rng(seed)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for number in range(frames):
        chosen = rng.permutation(CELLS * CELLS)[: number % 3]
        blocks = [(LABELS[rng.integers(2)], int(c) % CELLS, int(c) // CELLS) for c in chosen]
        image = picture(*blocks, seed=int(rng.integers(1 << 30)))
        cv2.imwrite(str(folder / "images" / f"{number:03d}.png"), image[..., ::-1])
        share = 1 / CELLS
        lines = [
            f"{LABELS.index(name)} {(c + 0.5) * share} {(r + 0.5) * share} {share} {share}\n"
            for name, c, r in blocks
        ]
        (folder / "labels" / f"{number:03d}.txt").write_text("".join(lines))
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(LABELS))
    (folder / "data.yaml").write_text(f"train: images\nval: images\nnames:\n{names}")
    return folder


# ------------------------------------------------------------------------------------------ ONNX


def write_yolox(file, *, shift=0.0, classes=2, batch=1, sides=(SIDE, SIDE), external=False):
    """Write a YOLOX file of B, G, R 0..255: (1, 336, 5 + classes); only the coarse cells find."""
    from onnx import save_model

    fine = sum((SIDE // stride) ** 2 for stride in (8, 16))
    constants = {
        "fine": np.zeros((1, fine, 5 + classes), np.float32),
        "no": np.zeros((5, 3, 1, 1), np.float32),
        "box": np.array([0.5 + shift, 0.5, 0, 0, 1], np.float32),  # the cell, surely a thing
        "kinds": _colors(classes, "bgr"),
        "least": np.full(classes, -LEAST, np.float32),
        "flat": np.array([1, 5 + classes, CELLS * CELLS], np.int64),
    }
    nodes = [
        _node("AveragePool", ["images"], "mean", kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        _node("Conv", ["mean", "no", "box"], "boxes"),
        _node("Conv", ["mean", "kinds", "least"], "logits"),
        _node("Sigmoid", ["logits"], "scores"),
        _node("Concat", ["boxes", "scores"], "map", axis=1),
        _node("Reshape", ["map", "flat"], "columns"),
        _node("Transpose", ["columns"], "coarse", perm=[0, 2, 1]),
        _node("Concat", ["fine", "coarse"], "output", axis=1),
    ]
    takes = {"images": (batch, 3, *sides)}
    gives = {"output": (1, fine + CELLS * CELLS, 5 + classes)}
    model = _model(nodes, takes, gives, constants)
    if external:
        options = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
        save_model(model, str(file), **options)
    else:
        save_model(model, str(file))
    return file


def write_transformer(
    file, *, names=("dets", "labels"), columns=3, scaled="imagenet", nothing=-LEAST
):
    """Write a file with a query for each cell: boxes as shares of the middle and sides, logits."""
    mean, std = {"imagenet": IMAGENET, "one": ((0.0,) * 3, (255.0,) * 3)}[scaled]
    middles = [((i % CELLS + 0.5) / CELLS, (i // CELLS + 0.5) / CELLS) for i in range(CELLS**2)]
    boxes = np.array([[(x, y, 1 / CELLS, 1 / CELLS) for x, y in middles]], np.float32)
    kernel = _colors(columns, "rgb")
    bias = kernel[:, :, 0, 0] @ np.array(mean, np.float32) - LEAST
    bias[2:] = nothing
    constants = {
        names[0] + "_all": boxes,
        "kernel": kernel * np.array(std, np.float32)[:, None, None],  # undoes the scaling
        "bias": bias.astype(np.float32),
        "flat": np.array([1, columns, CELLS * CELLS], np.int64),
    }
    nodes = [
        _node("AveragePool", ["input"], "mean", kernel_shape=[CELL] * 2, strides=[CELL] * 2),
        _node("Conv", ["mean", "kernel", "bias"], "map"),
        _node("Reshape", ["map", "flat"], "columns"),
        _node("Transpose", ["columns"], names[1], perm=[0, 2, 1]),
        _node("Identity", [names[0] + "_all"], names[0]),
    ]
    gives = {names[0]: (1, CELLS**2, 4), names[1]: (1, CELLS**2, columns)}
    return _saved(_model(nodes, {"input": (1, 3, SIDE, SIDE)}, gives, constants), file)


IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def _colors(columns, order):
    """Return kernels, (columns, 3, 1, 1): blue less red, red less blue, nothing."""
    blue, red = order.index("b"), order.index("r")
    kernel = np.zeros((columns, 3, 1, 1), np.float32)
    kernel[0, blue], kernel[0, red] = STEEP, -STEEP
    if columns > 1:
        kernel[1, red], kernel[1, blue] = STEEP, -STEEP
    return kernel


def _node(kind, takes, gives, **about):
    from onnx import helper

    return helper.make_node(kind, takes, [gives], **about)


def _model(nodes, takes, gives, constants):
    from onnx import TensorProto, helper, numpy_helper

    def infos(shapes):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]

    made = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "blocks", infos(takes), infos(gives), made)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8)


def _saved(model, file):
    from onnx import save_model

    save_model(model, str(file))
    return file


# ---------------------------------------------------------------------------------------- TFLite


def write_postprocess(file, *, integer=True, most=10):
    """Write a file of TFLite's four outputs, in TensorFlow 2's order; it takes bytes, R, G, B."""
    import tensorflow as tf

    kernel = tf.constant(_colors(2, "rgb")[:, :, 0, 0].T)  # (3, 2)

    class Blocks(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec((1, SIDE, SIDE, 3), tf.uint8 if integer else tf.float32, "images")
            ]
        )
        def __call__(self, images):
            pixels = tf.cast(images, tf.float32) if integer else images * 127.5 + 127.5
            mean = tf.nn.avg_pool2d(pixels, CELL, CELL, "VALID")
            logits = tf.reshape(mean, (CELLS * CELLS, 3)) @ kernel - LEAST
            scores, index = tf.math.top_k(tf.reshape(tf.sigmoid(logits), (-1,)), most)
            cell = tf.cast(index // 2, tf.float32)
            row = tf.floor(cell / CELLS)
            column = cell - row * CELLS
            corner = tf.stack([row, column, row + 1, column + 1], axis=1) / CELLS
            return {
                "output_0": tf.constant([float(most)]),
                "output_1": scores[None],
                "output_2": tf.cast(index % 2, tf.float32)[None],
                "output_3": corner[None],
            }

    return _converted(Blocks(), file)


def write_flex(file):
    """Write a file with an operator of TensorFlow that LiteRT has not."""
    import tensorflow as tf

    class Sorted(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((1, SIDE, SIDE, 3), tf.float32, "images")])
        def __call__(self, images):
            return {"output": tf.linalg.inv(tf.reshape(images, (3, SIDE, SIDE)))}

    return _converted(Sorted(), file, flex=True)


def _converted(module, file, *, flex=False):
    import tensorflow as tf

    concrete = module.__call__.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    if flex:
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS,
            tf.lite.OpsSet.SELECT_TF_OPS,
        ]
    file.write_bytes(converter.convert())
    return file
