"""What `sdpose predict`, `sdpose stream` and archives do, without the command line."""
