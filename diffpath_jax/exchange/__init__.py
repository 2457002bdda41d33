"""Files of other programs, written from data sets and runs of this one."""
