"""What a data set is made of: slides, or patches that exist already."""
