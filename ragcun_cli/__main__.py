"""`python -m ragcun_cli`, the same as `ragcun`."""

from ragcun_cli.main import main

main()
