#!/usr/bin/env bash
# safetensors 0.8.0 writes a transposed NumPy array with its numbers in another order, silently.
#
# Versions: safetensors 0.8.0 and 0.7.0, numpy 2.4.6, Python 3.11.
# Expected: what load_file returns equals what save_file was given: the format stores tensors in C
#   order, and 0.7.0 wrote them so. (The torch part of the library refuses such tensors.)
# Seen: 0.8.0 hands the array's memory on as it lies, with the shape of the view. Shape and type are
#   right, the numbers are not; so it is with Fortran order. Such arrays come from .T, and from
#   scikit-learn's PCA. np.ascontiguousarray() before saving helps. See issue 825 of
#   safetensors/safetensors. Exits 1 if that is no longer so.
#
# Output on 2026-12-03:
#   safetensors 0.7.0, C order: saved [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], loaded [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
#   safetensors 0.7.0, transposed: saved [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], loaded [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
#   safetensors 0.7.0, Fortran order: saved [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], loaded [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
#   safetensors 0.8.0, C order: saved [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], loaded [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
#   safetensors 0.8.0, transposed: saved [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], loaded [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
#   safetensors 0.8.0, Fortran order: saved [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], loaded [[0.0, 3.0, 1.0], [4.0, 2.0, 5.0]]
#   as described: 0.8.0 changes the numbers, 0.7.0 does not
set -eu
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat > "$work/order.py" <<'PYTHON'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

rows = np.arange(6, dtype=np.float32).reshape(2, 3)
given = {"C order": rows, "transposed": rows.T, "Fortran order": np.asfortranarray(rows)}
save_file(given, sys.argv[1])
found = load_file(sys.argv[1])
wrong = {name for name, array in given.items() if not np.array_equal(array, found[name])}
for name, array in given.items():
    print(f"safetensors {safetensors.__version__}, {name}: "
          f"saved {array.tolist()}, loaded {found[name].tolist()}")
broken = {"transposed", "Fortran order"} if safetensors.__version__ == "0.8.0" else set()
sys.exit(wrong != broken)
PYTHON
for version in 0.7.0 0.8.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install -qq "safetensors==$version" numpy==2.4.6
    "$work/$version/bin/python" "$work/order.py" "$work/$version.safetensors" ||
        { echo "changed: no longer as described above"; exit 1; }
done
echo "as described: 0.8.0 changes the numbers, 0.7.0 does not"
