"""Keep copies of runs in folders and on S3, as single objects and as whole folders."""
