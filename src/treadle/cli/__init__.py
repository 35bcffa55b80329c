"""The command `treadle`: one file per command. Nothing heavy is imported before a command runs."""
