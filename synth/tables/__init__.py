"""Tables: encode, measure, train, sample, decode."""
