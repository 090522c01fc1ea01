"""`cloud-server compress`: a recipe's steps, each done once, from a trained classifier to a table.

    recipe.py    the TOML file: what may be asked, in which order
    chain.py     the steps one after the other; what is done is not done again
    pictures.py  labelled pictures, as the network takes them
    network.py   a Keras classifier in a file, and the students
    learning.py  distill and prune
    files.py     convert, quantize and export: files of a network, checked against it
    measure.py   size, accuracy, latency and memory of files
    results.py   the table, the plot, pipeline.json
    __main__.py  the process that does it: the only one that loads Keras

Every step fills an empty folder from others, so each can be called alone.
"""
