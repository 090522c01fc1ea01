"""Who the robots are: register, offenses, when each was last seen, queries over them."""
