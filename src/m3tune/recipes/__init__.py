"""The shipped recipes: whole runs that differ only in their TOML."""
