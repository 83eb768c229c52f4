"""The `sdpose` command; each file is one subcommand and imports heavy things only when run."""
