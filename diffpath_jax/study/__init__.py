"""What synthetic images are worth: arms that differ in their training images alone."""
