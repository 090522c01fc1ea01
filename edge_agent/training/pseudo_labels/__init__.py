"""Labels for free: a model's own sure answers teach it where nobody has told the truth."""
