"""StructVPR: which training pairs structure teaches, how much, and how a student of photographs is drawn to a teacher of label maps."""
