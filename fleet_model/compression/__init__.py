"""Updates in fewer bytes: half precision, eight bits a number, or the largest few."""
