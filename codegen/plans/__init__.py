"""One file for each algorithm: from a layer to stages with layouts and roles, and what is claimed of them."""
