"""The model that robots and cloud share: what is learned and how it travels."""

__version__ = "0.1.0"
