"""PyTorch on the server: trainers and engines of workloads that have a torch model.

backend.py      what the seam asks for
onnx_files.py   parts of a model as .onnx files, in float32 and int8, checked before they are used
start.py        where the weights of a new model come from: a folder, a hub, a server's checkpoint
"""
