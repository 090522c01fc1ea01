"""Train a text classifier on one machine: a model that a fleet can start from.

    prepare   tables -> texts for training and for validation        prepare.py
    tokenize  texts -> numbers, by the model's own tokenizer         tokens.py
    train     numbers -> metrics.json, confusion_matrix.png, model/  training.py, results.py

Each step is a plain function from folders to a new folder. steps.py names that folder by all that
goes into it - data, options, code - so a step that is done is never done again, and never passes
for another one. pipeline.py puts them together, places.py fetches and delivers. `cloud-server
pipeline run` starts them in a process of their own (child.py, __main__.py): the server itself
loads no ML framework. flyte_tasks.py runs the same functions as tasks of Flyte.
"""
