"""The networks of the comparisons: seeded random weights, settled batch norms, seeded pictures."""
