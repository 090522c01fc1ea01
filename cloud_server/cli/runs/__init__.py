"""Commands over runs: begin, follow, stop, resume, measure."""
