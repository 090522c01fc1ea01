"""This machine: its settings, power, memory, pause file, waiting times; why a robot is busy."""
