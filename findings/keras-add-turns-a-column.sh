#!/usr/bin/env bash
# Keras on TensorFlow adds a column to a square matrix as if it were a row, without a word.
#
# Versions: keras 3.15.1 with tensorflow-cpu 2.21.0 and numpy 2.4.6, Python 3.11, x86-64 Linux.
# Expected: keras.ops.add broadcasts (its docstring says so), as all of keras.ops follows NumPy:
#   (2, 2) + (2, 1) adds one number to each row, and (1, 3, 1) + (1, 1, 3) gives (1, 3, 3).
#   keras.ops.subtract does so, and a functional model declares this shape for its sum.
# Seen: keras/src/backend/tensorflow/numpy.py takes a second operand that is longer than 1 on one
#   axis only for a bias of the last axis (or of axis 1) whose length fits, whichever axis it stood
#   on. The first sum has the right shape and wrong numbers; the second has another shape than the
#   model declares. With the operands exchanged both are right.
# Exits 1 if that is no longer so. About 2 GB are installed in a temporary folder.
#
# Output on 2026-12-03:
#   NumPy: square + column = [[1.0, 1.0], [2.0, 2.0]]
#   keras 3.15.1: square + column = [[1.0, 2.0], [1.0, 2.0]]
#   keras 3.15.1: column + square = [[1.0, 1.0], [2.0, 2.0]]
#   keras 3.15.1: square - (-column) = [[1.0, 1.0], [2.0, 2.0]]
#   keras 3.15.1: (1, 3, 1) + (1, 1, 3): declared (1, 3, 3), is (1, 3, 1)
#   as described: the column is added as a row
set -eu
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -qq keras==3.15.1 tensorflow-cpu==2.21.0 numpy==2.4.6
cat > "$work/sums.py" <<'PYTHON'
import sys

import keras
import numpy as np

square, column = np.zeros((2, 2), "float32"), np.array([[1], [2]], "float32")
found = {
    "square + column": keras.ops.add(square, column),
    "column + square": keras.ops.add(column, square),
    "square - (-column)": keras.ops.subtract(square, -column),
}
found = {name: np.array(tensor).tolist() for name, tensor in found.items()}
inputs = keras.Input((3, 1), batch_size=1), keras.Input((1, 3), batch_size=1)
model = keras.Model(inputs, inputs[0] + inputs[1])
shape = tuple(model([np.zeros(tensor.shape, "float32") for tensor in inputs]).shape)
print(f"NumPy: square + column = {(square + column).tolist()}")
for name, numbers in found.items():
    print(f"keras {keras.__version__}: {name} = {numbers}")
print(f"keras {keras.__version__}: (1, 3, 1) + (1, 1, 3): declared {model.output_shape}, is {shape}")
by_row, by_column = [[1.0, 1.0], [2.0, 2.0]], [[1.0, 2.0], [1.0, 2.0]]
same = list(found.values()) == [by_column, by_row, by_row]
sys.exit(not (same and model.output_shape == (1, 3, 3) and shape == (1, 3, 1)))
PYTHON
KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES='' \
    "$work/venv/bin/python" "$work/sums.py" 2> "$work/log" ||
    { tail -n 3 "$work/log"; echo "changed: no longer as described above"; exit 1; }
echo "as described: the column is added as a row"
