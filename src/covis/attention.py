"""Where in a photograph a descriptor looks."""
