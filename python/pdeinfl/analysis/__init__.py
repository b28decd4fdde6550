"""From influence matrices to statements: standardisation, aggregations, summary numbers, Lie derivatives, symmetry."""
