"""Reports about a detector and its training, one module each."""
