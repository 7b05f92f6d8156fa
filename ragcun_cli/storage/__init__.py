"""Where copies of runs are kept: folders and S3, object by object and folder by folder."""
