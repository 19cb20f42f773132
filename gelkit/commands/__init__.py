"""The commands, each a library call plus printing, and what they share."""
