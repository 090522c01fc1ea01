#!/usr/bin/env bash
# TensorFlow's converter to LiteRT drops a ReLU that follows the product of two computed matrices.
#
# Versions: tensorflow-cpu 2.21.0, ai-edge-litert 2.3.0, numpy 2.4.6, Python 3.11, x86-64 Linux.
# Expected: relu(x) is max(x, 0), and a converted model computes what the graph did, or the
#   conversion fails. So no output of a model that ends with a ReLU is negative.
# Seen: for rank-2 factors that are both inputs (as in adapters and in hand-written gradients) the
#   file holds BATCH_MATMUL alone: relu and max(x, 0) are gone, and -4 comes out for 0. There
#   is no error and no warning. With factors of rank 3 the ReLU stays; abs stays with rank 2, too.
# Exits 1 if that is no longer so. About 2 GB are installed in a temporary folder.
#
# Output on 2026-12-03:
#   tensorflow 2.21.0, relu: TensorFlow 0, LiteRT -4
#   tensorflow 2.21.0, max(x, 0): TensorFlow 0, LiteRT -4
#   tensorflow 2.21.0, abs: TensorFlow 4, LiteRT 4
#   tensorflow 2.21.0, relu, rank 3: TensorFlow 0, LiteRT 0
#   as described: the ReLU after a product of rank 2 is lost
set -eu
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq tensorflow-cpu==2.21.0 ai-edge-litert==2.3.0 numpy==2.4.6
cat > "$work/relu.py" <<'PYTHON'
import sys

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter


def converted(compute, *shapes):
    """Return one output element by TensorFlow and by LiteRT: all of a are -1, all of b 1."""
    given = [tf.TensorSpec(shape, tf.float32, name=name) for name, shape in zip("ab", shapes)]
    graph = tf.function(compute, input_signature=given)
    graphs = [graph.get_concrete_function()]
    file = tf.lite.TFLiteConverter.from_concrete_functions(graphs, tf.Module()).convert()
    runner = Interpreter(model_content=file).get_signature_runner()
    a, b = (np.full(shape, sign, "float32") for shape, sign in zip(shapes, (-1, 1)))
    (found,) = runner(a=a, b=b).values()
    return float(graph(a, b).numpy().flat[0]), float(found.flat[0])


tall, wide = (3, 4), (4, 5)
cases = {
    "relu": converted(lambda a, b: tf.nn.relu(tf.matmul(a, b)), tall, wide),
    "max(x, 0)": converted(lambda a, b: tf.maximum(tf.matmul(a, b), 0.0), tall, wide),
    "abs": converted(lambda a, b: tf.abs(tf.matmul(a, b)), tall, wide),
    "relu, rank 3": converted(lambda a, b: tf.nn.relu(tf.matmul(a, b)), (1, *tall), (1, *wide)),
}
for name, (wanted, found) in cases.items():
    print(f"tensorflow {tf.__version__}, {name}: TensorFlow {wanted:g}, LiteRT {found:g}")
lost = {name for name, (wanted, found) in cases.items() if wanted != found}
sys.exit(lost != {"relu", "max(x, 0)"})
PYTHON
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES='' \
    "$work/venv/bin/python" "$work/relu.py" 2> "$work/log" ||
    { tail -n 3 "$work/log"; echo "changed: no longer as described above"; exit 1; }
echo "as described: the ReLU after a product of rank 2 is lost"
