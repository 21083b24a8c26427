"""Several processes that answer Postfix on the same ports, and the main process that supervises them."""
