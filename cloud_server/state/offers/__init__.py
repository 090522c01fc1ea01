"""What the store offers to whom: the files of channels and of their sites."""
