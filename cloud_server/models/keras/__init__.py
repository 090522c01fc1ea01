"""The backend of workloads whose model is defined in Keras: TensorFlow exports it for LiteRT.

backend.py            trainers and engines of one workload
litert_graphs.py      Keras -> .tflite
parity_gate.py        refuses a .tflite that does not compute what Keras computes
checkpoint_import.py  an operator's own weights
"""
