"""Students × strategies × seeds on one data set with one set of labels."""
