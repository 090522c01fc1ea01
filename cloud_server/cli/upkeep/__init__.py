"""Commands that keep a server directory sound: look at it, mend it."""
