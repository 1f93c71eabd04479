"""The plans of the store's operations, a file for each kind of operation."""
