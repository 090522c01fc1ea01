"""How a file of a model runs: by LiteRT's Interpreter, or by CompiledModel where that is faster.

stage.py      one file, by the Interpreter
compiled.py   the same, by CompiledModel
runtime.py    which of the two runs a bundle on this robot, and what was measured
"""
