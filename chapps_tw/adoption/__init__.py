"""Moving over from CHAPPS 0.5: what its Redis contains."""
