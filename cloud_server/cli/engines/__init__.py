"""Commands over detectors of other tools."""
