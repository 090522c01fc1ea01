"""Which of the signed models is this robot's: by its site, and by its turn in a rollout."""
