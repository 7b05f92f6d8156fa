"""Recipes define experiments: one YAML file per arm. Nothing here imports torch, so reading one is instant."""
