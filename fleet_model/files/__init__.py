"""Files that people and their tools wrote: texts in any encoding, large JSON, what is damaged."""
