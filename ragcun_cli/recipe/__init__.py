"""What an experiment is: one YAML file, one arm. No torch here, so that reading a recipe is instant."""
