"""The cloud side: run rounds, aggregate updates, export and publish models."""
