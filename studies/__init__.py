"""Many runs: arms, search, workers, final runs, tables, and the command line."""
