"""Influence: Jacobian products, the neural-tangent metric, solvers with certificates, results and their store."""
