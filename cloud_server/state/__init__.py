"""The server directory: paths, settings, certificates, checkpoints, model store, history."""
