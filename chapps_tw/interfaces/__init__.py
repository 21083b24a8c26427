"""The interfaces of the stores, as policies and the HTTP API use them."""
