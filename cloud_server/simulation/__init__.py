"""A fleet of virtual robots under the real round loop, for planning and for measuring the loop.

population.py    who the robots are: data, speed, network, when they are switched off
learning.py      what they learn: a softmax head, really trained
virtual_fleet.py the Fleet seam and a clock that jumps to the next thing that happens
simulate.py      rounds one after the other, and what they add up to
picture.py       what it looks like; chart.py draws
flower_apps.py   the same robots as Flower apps, for Flower's Ray engine
"""
