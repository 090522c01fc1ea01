"""The installed model over REST and gRPC, by the Open Inference Protocol v2, on this machine only.

A request takes this way:

  connection.py, rest.py | grpc_service.py   its bytes, bounded in size and time
  arrivals.py          of gRPC: how slowly its messages may come
  turns.py             it waits its turn: one client after the other, one thread for the model
  rest_body.py | grpc_messages.py            bytes to `InferRequest`, and answers back
  served.py            which model is asked; `infer`
  tensors.py           name, type, shape, range and finiteness of every input
"""
