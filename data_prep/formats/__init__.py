"""One module a format of annotations: ``read`` gives its outlines."""
