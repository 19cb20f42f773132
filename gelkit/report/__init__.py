"""What people see: summaries for the terminal."""
