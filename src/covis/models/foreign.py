"""Any torch module as a describer, with the pixels that it expects said beside it."""
