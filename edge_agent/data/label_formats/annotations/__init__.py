"""Files beside pictures that name them and say what is on them, as many tools write them."""
