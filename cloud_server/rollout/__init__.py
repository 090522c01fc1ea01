"""Staged rollouts: groups of robots get a new version one after the other, or it is halted."""
