"""What is fuzzed: one module for each reader, with what it may do and files to begin with."""
