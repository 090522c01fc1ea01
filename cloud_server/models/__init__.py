"""From checkpoint to published model: import, export, calibration, publish."""
