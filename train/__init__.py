"""Training: from recordings to a network and honest figures about it."""
