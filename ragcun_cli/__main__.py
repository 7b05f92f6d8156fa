"""Run `python -m ragcun_cli` as `ragcun`."""

from ragcun_cli.main import main

main()
