"""Studies of the worth of synthetic images: arms that differ in their training images alone."""
