"""The function's own modules, which Chalice packages together with app.py."""
