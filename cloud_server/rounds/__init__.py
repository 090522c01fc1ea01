"""One round: choose robots, check their updates, keep them, fold them."""
