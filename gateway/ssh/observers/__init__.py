"""What watches a session's bytes and never touches them: recordings of terminals, the journal of file operations."""
