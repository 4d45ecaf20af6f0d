"""Chain-of-Thought-Action traces: made by a teacher that calls the real tools, scored, loaded."""
