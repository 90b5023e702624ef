"""The command that draws where a descriptor looks: attention."""
