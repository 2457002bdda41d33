"""Sources of a data set: slides, or patches that exist already."""
