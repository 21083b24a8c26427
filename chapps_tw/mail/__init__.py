"""What one request says, and what is answered."""
