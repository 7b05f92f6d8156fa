"""Where texts come from and how they reach the model. No torch here: texts, ids and orders only."""
