"""A model for each site: sites that learn alike are found, and learn from each other more."""
