"""The library: private rows in, a documented, verifiable bundle out. Works from a plain Python shell."""
