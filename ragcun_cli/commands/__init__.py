"""One module per command group: parse, call, print. Imports of what a command needs stand inside it."""
