"""One module per command group: parse, call, print. Each command imports what it needs inside its function."""
