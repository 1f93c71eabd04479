"""What the function has of its own: Chalice packages this folder with app.py."""
