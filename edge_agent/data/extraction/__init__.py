"""edge-agent extract: bags and data sets become a data set on disk."""
