"""The paper's models and two small ones: shapes, exact parameter counts, compute, memory, clusters."""
