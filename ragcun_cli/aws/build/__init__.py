"""Build requests to AWS: one function per request turns a plan into a dictionary. None sends anything."""
