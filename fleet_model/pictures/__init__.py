"""Image files: what they say of themselves, whether they are whole, and their pixels."""
