"""Make a trained model smaller and faster, and measure what that costs.

    cut_vocabulary   the table of words, cut to those of a corpus     vocabulary.py
    take_layers      fewer layers                                     layers.py
    narrow           fewer neurons in each layer: the file shrinks    layers.py
    narrow_channels  the same of a Keras network of pictures          channels.py
    prune            the smallest numbers are zero                    pruning.py
    distill          what a smaller model learns of a larger one      distilling.py
    distill_pictures the same of pictures                             picture_distilling.py
    export, quantize .onnx in float32 and int8, behind a gate         exporting.py
    scores, latencies, table   models side by side                    measuring.py

Each is a plain function, mostly from a folder of Hugging Face's layout to a new one (folders.py),
so that any caller may keep and resume what is done. Pictures have Keras networks in memory. PyTorch
is imported within distilling.py alone, and by what writes .onnx files, Keras by what has pictures;
the server's core imports none of it.
"""
