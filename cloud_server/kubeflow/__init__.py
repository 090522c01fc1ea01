"""Rounds of departments as a Kubeflow pipeline: prepare, clients, rounds, profiles, publish.

options.py     what it is asked for
stages.py      the stages: plain functions from folders to folders
component.py   a stage as a process: its outputs are looked at, and errors have its name
definition.py  the components and the pipeline, which kfp ships
compiling.py   YAML for a cluster, held against the schema and against what is meant
local_run.py   the same components, one after the other, on this machine
"""
