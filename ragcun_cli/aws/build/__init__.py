"""What is asked of AWS: one function for each request, from plan to dictionary. None sends anything."""
