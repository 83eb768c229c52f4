"""The work of `sdpose predict`, `sdpose stream` and archives, without the command line."""
