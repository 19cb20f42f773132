"""What comes in: find image files, decode them truthfully, make views, tell likeness."""
