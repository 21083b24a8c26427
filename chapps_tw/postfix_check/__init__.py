"""What Postfix asks, by its configuration, and what is wrong with it. Pure: reads no files and asks nobody."""
