"""State in one database: SQLite in WAL mode by default. Deciding is the work of the rooms above."""
